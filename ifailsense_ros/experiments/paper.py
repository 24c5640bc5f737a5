"""The paper's own figures, beside ours in the report: on other data sets, with a 3B model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of one of its tables; all figures as printed."""

    method: str
    num_pov: int
    accuracy: float
    precision: float
    recall: float
    f1: float


TABLE_1 = (
    PaperRow("GPT-4o (zs)", 1, 0.5764, 0.8125, 0.2453, 0.3768),
    PaperRow("GPT-4o (zs)", 2, 0.6305, 0.7719, 0.4151, 0.5399),
    PaperRow("PaliGemma2-mix 3B (zs)", 1, 0.4729, 0.4961, 0.5943, 0.5408),
    PaperRow("PaliGemma2-mix 3B (zs)", 2, 0.5271, 0.5329, 0.7642, 0.6279),
    PaperRow("Qwen2.5-VL 7B (zs)", 1, 0.6798, 0.6323, 0.9245, 0.7510),
    PaperRow("Qwen2.5-VL 7B (zs)", 2, 0.6946, 0.6507, 0.8962, 0.7540),
    PaperRow("I-FailSense (LoRA only)", 1, 0.8571, 0.8667, 0.8585, 0.8626),
    PaperRow("I-FailSense (LoRA only)", 2, 0.8227, 0.8365, 0.8208, 0.8286),
    PaperRow("I-FailSense (ours)", 1, 0.9064, 0.8850, 0.9434, 0.9132),
    PaperRow("I-FailSense (ours)", 2, 0.8818, 0.8596, 0.9245, 0.8909),
)
"""SMF-CALVIN, 203 rows."""

TABLE_2 = (
    PaperRow("GPT-4o (zs)", 1, 0.5471, 0.8421, 0.1159, 0.2038),
    PaperRow("GPT-4o (zs)", 2, 0.5797, 0.8056, 0.2101, 0.3333),
    PaperRow("PaliGemma2-mix 3B (zs)", 1, 0.5399, 0.5304, 0.6957, 0.6019),
    PaperRow("PaliGemma2-mix 3B (zs)", 2, 0.5145, 0.5099, 0.7464, 0.6059),
    PaperRow("Qwen2.5-VL 7B (zs)", 1, 0.6884, 0.8250, 0.4783, 0.6055),
    PaperRow("Qwen2.5-VL 7B (zs)", 2, 0.7536, 0.8646, 0.6014, 0.7094),
    PaperRow("I-FailSense (FS blocks: CALVIN)", 1, 0.5580, 0.6250, 0.2899, 0.3960),
    PaperRow("I-FailSense (FS blocks: CALVIN)", 2, 0.6196, 0.8000, 0.3188, 0.4560),
    PaperRow("I-FailSense (FS blocks: both)", 1, 0.6594, 0.7075, 0.5435, 0.6148),
    PaperRow("I-FailSense (FS blocks: both)", 2, 0.6848, 0.7802, 0.5145, 0.6201),
    PaperRow("I-FailSense (FS blocks: DROID)", 1, 0.7100, 0.7500, 0.6304, 0.6850),
    PaperRow("I-FailSense (FS blocks: DROID)", 2, 0.7428, 0.7680, 0.6957, 0.7300),
)
"""SMF-DROID, 276 rows."""

FIGURE_6 = {"I-FailSense": 0.89, "AHA 7B": 0.69, "AHA 13B": 0.70}
"""Detection on AHA: about 85 percent control errors and 15 percent wrong objects, all of them
failures; false alarms are not reported. Of the picture, what the text says in numbers."""
