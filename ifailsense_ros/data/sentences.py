"""Which sentences are said in which split, in the catalog of a data set that is being built."""

from __future__ import annotations

from ifailsense_ros.data.catalog import EXPERT_ROLE, Catalog
from ifailsense_ros.data.splits import TEST, unit_hash


def keep_apart(catalog: Catalog, count: int, seed: int) -> None:
    """Reword episodes so that `count` sentences of each task are said in test splits alone.

    Another sentence for the same task is as true of the episode as the recorded one. Tasks with
    no more than `count` sentences stay as they are, and so do records that bring their own wrong
    instruction.
    """
    _shuffle_by(catalog, seed)
    is_test = f"split LIKE '{TEST}%'"
    with catalog.db:
        catalog.db.execute(
            "UPDATE episodes SET instruction = recorded, phrasing = recorded_phrasing "
            "WHERE instruction != recorded"
        )
        if not count:
            return
        catalog.db.execute("DROP TABLE IF EXISTS temp.pool")
        # `place` counts the test sentences and the others of each task apart, from 0.
        catalog.db.execute(
            "CREATE TEMP TABLE pool AS SELECT *, ROW_NUMBER() OVER of_kind - 1 AS place, "
            "COUNT(*) OVER (PARTITION BY source, task, for_test) AS many FROM ("
            "SELECT *, ROW_NUMBER() OVER (PARTITION BY source, task ORDER BY tie(said)) <= ? "
            "AS for_test, COUNT(*) OVER (PARTITION BY source, task) AS known FROM ("
            "SELECT source, task, recorded AS said, MIN(recorded_phrasing) AS number "
            "FROM episodes WHERE role = ? AND negative_task IS NULL GROUP BY 1, 2, 3)) "
            "WHERE known > ? "
            "WINDOW of_kind AS (PARTITION BY source, task, for_test ORDER BY tie(said))",
            (count, EXPERT_ROLE, count),
        )
        catalog.db.execute("CREATE INDEX temp.by_said ON pool (source, task, said)")
        catalog.db.execute("CREATE INDEX temp.by_place ON pool (source, task, for_test, place)")
        catalog.db.execute(
            "UPDATE episodes SET (instruction, phrasing) = (SELECT said, number FROM pool p "
            "WHERE p.source = episodes.source AND p.task = episodes.task "
            f"AND p.for_test = ({is_test}) AND p.place = CAST(shuffle * many AS INTEGER)) "
            "WHERE role = ? AND negative_task IS NULL AND EXISTS (SELECT 1 FROM pool p "
            "WHERE p.source = episodes.source AND p.task = episodes.task "
            f"AND p.said = episodes.recorded AND p.for_test != ({is_test}))",
            (EXPERT_ROLE,),
        )


def collect_sentences(catalog: Catalog, seed: int) -> None:
    """What is said for each task in each split, and how often it is owed as a negative.

    A sentence is owed once for every countable episode that says it, and paid by every designated
    negative that says it.
    """
    _shuffle_by(catalog, seed)
    count = "SUM(CASE WHEN why = '' THEN 1 ELSE 0 END)"
    with catalog.db:
        for task, instruction, sign in (
            ("task", "instruction", ""),
            ("negative_task", "negative_instruction", "-"),
        ):
            catalog.db.execute(
                f"INSERT INTO sentences SELECT source, split, {task}, MIN(category), "
                f"COALESCE(MIN(phrasing), -1), {instruction}, {sign}{count}, tie({instruction}) "
                f"FROM episodes WHERE role = ? AND {task} IS NOT NULL "
                f"GROUP BY source, split, {task}, {instruction} ORDER BY 1, 2, 3, 6 "
                "ON CONFLICT DO UPDATE SET owed = owed + excluded.owed",
                (EXPERT_ROLE,),
            )


def _shuffle_by(catalog: Catalog, seed: int) -> None:
    """Teach SQLite ``tie``: an order of sentences as good as random, the same for a seed."""
    catalog.db.create_function("tie", 1, lambda text: unit_hash(str(seed), "tie", text))
