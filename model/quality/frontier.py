"""What quantization costs: the formats of `glm quantize` and those of llama.cpp, on the same weights and the same text.

The weights are quantized and dequantized with ggml's own functions and saved as F32, so that one program measures all formats.

usage: frontier.py --glm GLM --ggml LIBGGML_BASE.so --model F16_FOLDER --text TEXT --calibrate TEXT --work FOLDER --out frontier.json
needs: numpy gguf safetensors
"""
import argparse
import ctypes
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import load_file, save_file

PEERS = ["Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q8_0"]
OURS = [
    ("INT4, groups of 128", ["--group", "128"]),
    ("INT4, groups of 64", ["--group", "64"]),
    ("INT4, groups of 32", []),
    ("INT4 with minimum, groups of 128", ["--minimum", "--group", "128"]),
    ("INT4 with minimum, groups of 64", ["--minimum", "--group", "64"]),
    ("INT4 with minimum, groups of 32", ["--minimum"]),
    ("INT8, groups of 32", ["--bits", "8"]),
]


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def measure(args, folder):
    """The divergence from the original, per token."""
    command = [args.glm, "perplexity", "-m", folder, "--activations", "f32", "--against", args.model, "--json"]
    windows = ["--window", "384", "--stride", "384", "--windows", str(args.windows)]
    found = json.loads(run(*command, *windows, args.text))
    reference = found["reference"]
    return {
        "kl": reference["kl"]["mean"],
        "kl_error": reference["kl"]["error"],
        "kl_99": reference["kl_99"],
        "same_top": reference["same_top"]["mean"],
        "perplexity": found["perplexity"],
        "perplexity_f16": reference["perplexity"],
    }


def peer(args, ggml, name):
    """A folder with weights that ggml has quantized, and the bits that a weight took."""
    kind = GGMLQuantizationType[name]
    ggml.ggml_quantize_init(ctypes.c_int(kind))
    weights = load_file(args.model / "model.safetensors")
    bits = count = 0
    for key, weight in weights.items():
        weight = np.ascontiguousarray(weight.astype(np.float32))
        if weight.ndim == 2:
            rows, cols = weight.shape
            block, size = GGML_QUANT_SIZES[kind]
            data = np.zeros((rows, cols // block * size), np.uint8)
            ggml.ggml_quantize_chunk(
                ctypes.c_int(kind), weight.ctypes.data_as(ctypes.c_void_p), data.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(cols), None,
            )
            weight = dequantize(data, kind).reshape(rows, cols).astype(np.float32)
            bits, count = bits + 8 * data.size, count + rows * cols
        weights[key] = weight
    folder = args.work / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(args.model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, bits / count


def ours(args, name, flags):
    """A folder of `glm quantize`, and the bits that a weight took."""
    folder = args.work / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    run(args.glm, "quantize", args.model, folder, *flags)
    matrices = [weight for weight in load_file(args.model / "model.safetensors").values() if weight.ndim == 2]
    vectors = sum(w.nbytes for w in load_file(args.model / "model.safetensors").values() if w.ndim == 1)
    size = (folder / "model.safetensors").stat().st_size - vectors
    return folder, 8 * size / sum(weight.size for weight in matrices)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["glm", "ggml", "model", "text", "calibrate", "work", "out"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=65536, help="tokens of the calibration")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    ggml = ctypes.CDLL(str(args.ggml))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    points = []

    def add(source, name, folder, bits):
        points.append({"by": source, "format": name, "bits": round(bits, 3), **measure(args, folder)})
        print(json.dumps(points[-1]), flush=True)
        shutil.rmtree(folder)

    for name in PEERS:
        add("llama.cpp", name, *peer(args, ggml, name))
    for name, flags in OURS:
        add("glm", name, *ours(args, name, flags))
        calibrated = [*flags, "--calibration-tokens", args.tokens]
        add("glm, calibrated", name, *ours(args, name, [*calibrated, f"--calibrate={args.calibrate}"]))
        add("glm, calibrated with its own text", name, *ours(args, name, [*calibrated, "--calibrate"]))
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    texts = {str(path.name): digest(path) for path in [args.text, args.calibrate]}
    args.out.write_text(json.dumps({"texts": texts, "points": points}, indent=1) + "\n")


main()
