"""What quantization costs: formats of `glm quantize` and of llama.cpp, on the same weights and the same text.

usage: frontier.py --glm GLM --ggml LIBGGML_BASE.so --model F16_FOLDER --text TEXT --calibrate TEXT --work FOLDER --out frontier.json
needs: numpy gguf safetensors

Weights are quantized and dequantized with ggml's own functions and saved as F32, so that one program measures all formats. What is
in the output already is not measured again.
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

# Name, flags of `glm quantize`, whether it can be calibrated.
OURS = [
    ("INT4 symmetric, groups of 128", ["--symmetric", "--group", "128"], True),
    ("INT4 symmetric, groups of 64", ["--symmetric", "--group", "64"], True),
    ("INT4 symmetric, groups of 32", ["--symmetric"], True),
    ("INT4, groups of 128", ["--group", "128"], True),
    ("INT4, groups of 64 (default)", [], True),
    ("INT4, groups of 32", ["--group", "32"], True),
    ("--target-bits 4.3", ["--target-bits", "4.3"], True),
    ("--target-bits 4.5", ["--target-bits", "4.5"], True),
    ("--target-bits 5", ["--target-bits", "5"], True),
    ("INT8, groups of 128", ["--bits", "8", "--group", "128"], False),
    ("INT8, groups of 32", ["--bits", "8"], False),
]


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return done.stdout


def divergence(args, folder, activations):
    """The report of `glm perplexity` against the original."""
    command = [args.glm, "perplexity", "-m", folder, "--activations", activations, "--against", args.model, "--json"]
    windows = ["--window", "384", "--stride", "384", "--windows", args.windows]
    return json.loads(run(*command, *windows, args.text))


def measure(args, folder, activations=("f32",)):
    """The divergence from the original, in nats a token."""
    found = divergence(args, folder, "f32")
    reference = found["reference"]
    point = {
        "kl": reference["kl"]["mean"],
        "kl_error": reference["kl"]["error"],
        "kl_99": reference["kl_99"],
        "same_top": reference["same_top"]["mean"],
        "perplexity": found["perplexity"],
        "perplexity_f16": reference["perplexity"],
    }
    if "int8" in activations:
        point["kl_int8_activations"] = divergence(args, folder, "int8")["reference"]["kl"]["mean"]
    return point


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


def ours(args, flags):
    """A folder of `glm quantize`, and the bits that a weight took."""
    folder = args.work / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    run(args.glm, "quantize", args.model, folder, *flags)
    weights = load_file(args.model / "model.safetensors").values()
    vectors = sum(weight.nbytes for weight in weights if weight.ndim == 1)
    size = (folder / "model.safetensors").stat().st_size - vectors
    return folder, 8 * size / sum(weight.size for weight in weights if weight.ndim == 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["glm", "ggml", "model", "text", "calibrate", "work", "out"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=12288, help="tokens of a calibration")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    ggml = ctypes.CDLL(str(args.ggml))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    texts = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [args.text, args.calibrate]}
    report = json.loads(args.out.read_text()) if args.out.exists() else {"texts": texts, "windows": args.windows, "points": []}
    points = report["points"]

    def add(source, name, make, activations=("f32",)):
        if any((point["by"], point["format"]) == (source, name) for point in points):
            return
        folder, bits = make()
        points.append({"by": source, "format": name, "bits": round(bits, 3), **measure(args, folder, activations)})
        args.out.write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(points[-1]), flush=True)
        shutil.rmtree(folder)

    for name in PEERS:
        add("llama.cpp", name, lambda: peer(args, ggml, name))
    for name, flags, is_calibrated in OURS:
        add("glm", name, lambda: ours(args, flags), ("f32", "int8"))
        if is_calibrated:
            calibrated = [*flags, "--calibration-tokens", args.tokens]
            add("glm, calibrated", name, lambda: ours(args, [*calibrated, f"--calibrate={args.calibrate}"]))
            if "--target-bits" not in flags:
                add("glm, calibrated with its own text", name, lambda: ours(args, [*calibrated, "--calibrate"]))


main()
