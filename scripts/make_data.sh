#!/usr/bin/env bash
# Make the standard data sets from fixed seeds: what `make data` runs. Stop it whenever you like;
# the same command goes on where it was, and makes the same bytes.
#
#   scripts/make_data.sh [FOLDER]      default: data
#
# FOLDER/stores/* are the recorded episodes, FOLDER/{training,smf,failures,failures_dev,unseen} the
# data sets: manifest, data card and contact sheet. `training` is what sim-tiny learns from: the
# experts of smf, and the same left unfinished, with questions about their scenes. PYTHON, WORKERS
# and SCALE (percent of every size, for a trial) can be set. The unseen world needs its extra
# (docs/unseen.md); without it that part is left out, and the last line says so.
set -euo pipefail

data="${1:-data}"
python="${PYTHON:-python3}"
workers="${WORKERS:-$(nproc)}"
scale="${SCALE:-100}"
export MUJOCO_GL="${MUJOCO_GL:-egl}" LP_NUM_THREADS=1 OMP_NUM_THREADS=1

ifailsense() { "$python" -m ifailsense_ros.cli "$@"; }
size() { echo $((($1 * scale + 99) / 100)); }

stores="$data/stores"
record() {
  ifailsense sim record --split "$1" --episodes "$(size "$2")" --out "$stores/$1" \
    --workers "$workers"
}

record train 5000
record validation 400
record dev 300
record test 300
ifailsense data build --out "$data/smf" --licence Apache-2.0 --unfiltered --infeasible \
  --from "store:$stores/train" --from "store:$stores/validation" \
  --from "store:$stores/dev" --from "store:$stores/test"

for split in train validation; do
  ifailsense sim unfinished --data "$stores/$split" --out "$stores/unfinished_$split" \
    --workers "$workers"
  for store in "$split" "unfinished_$split"; do
    [ -f "$stores/$store/questions.parquet" ] || ifailsense sim questions --data "$stores/$store"
  done
done
ifailsense data build --out "$data/training" --licence Apache-2.0 \
  --from "store:$stores/train" --from "store:$stores/validation" \
  --from "store:$stores/unfinished_train" --from "store:$stores/unfinished_validation"

# For mending; the test split's are for measuring alone.
ifailsense sim record-failures --split dev --per-class "$(size 40)" \
  --out "$stores/failures_dev" --workers "$workers"
ifailsense data build --out "$data/failures_dev" --licence Apache-2.0 \
  --from "store:$stores/failures_dev"
ifailsense sim record-failures --split test --per-class "$(size 100)" \
  --out "$stores/failures" --workers "$workers"
ifailsense data build --out "$data/failures" --licence Apache-2.0 --from "store:$stores/failures"

sets=("$data/smf" "$data/failures" "$data/failures_dev")
left_out=""
if "$python" -c "import metaworld" 2>/dev/null; then
  ifailsense sim record-unseen --split test --episodes "$(size 200)" \
    --out "$stores/unseen" --workers "$workers"
  ifailsense data build --out "$data/unseen" --licence MIT --from "store:$stores/unseen"
  sets+=("$data/unseen")
else
  left_out="The unseen world was left out: pip install '.[unseen]' and run this again."
fi

for set in "${sets[@]}"; do
  ifailsense data show "$set" >"$set/show.txt"
done
ifailsense data check "${sets[@]}"
ifailsense data check "$data/training" # by itself: its experts are those of smf again
[ -z "$left_out" ] || echo "$left_out"
