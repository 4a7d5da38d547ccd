"""python -m demo: trains the demo model from scratch, or resumes from the state in WORK; then exports, quantizes and evaluates it.

Run it in `model/`, with `glm` built: cargo build --release -p glm-cli.
"""

import argparse
import json
import random
import shutil
import time
from pathlib import Path

import numpy
import torch

from . import evaluate, export, tokenizer as tokenizers
from .goldens import record
from .train import train

HERE = Path(__file__).parent


def arguments():
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/glm-demo"), help="where the training's state is kept")
    parser.add_argument("--begin", type=Path, help="a folder as f16/ whose weights and tokenizer a new training begins with")
    parser.add_argument("--steps", type=int, default=27700, help="training steps in all")
    parser.add_argument("--rows", type=int, default=3, help="rows of a batch, of --width tokens each")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate at its height")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cases", type=int, default=100, help="held-out cases of each skill in each language")
    parser.add_argument("--glm", default=str(HERE.parents[1] / "target/release/glm"), help="the program")
    parser.add_argument("--bundle", action="store_true", help="put weights and goldens where the program and its tests have them")
    parser.add_argument("--only-evaluate", action="store_true", help="ask the model in WORK/int4, change nothing")
    return parser.parse_args()


def main():
    args = arguments()
    if not shutil.which(args.glm):
        raise SystemExit(f"{args.glm} is not there: cargo build --release -p glm-cli")
    args.work.mkdir(parents=True, exist_ok=True)
    random.seed(args.seed), numpy.random.seed(args.seed), torch.manual_seed(args.seed)
    pieces, f16, int8, int4 = (args.work / name for name in ("ice_text.model", "f16", "int8", "int4"))
    started = time.time()
    if not pieces.exists() and args.begin:
        shutil.copy(args.begin / "ice_text.model", pieces)
    if not pieces.exists():
        tokenizers.train(pieces, args.seed)
    tokenizer = tokenizers.Tokenizer(pieces)
    if not args.only_evaluate:
        model = train(tokenizer, args.work / "state.pt", steps=args.steps, seed=args.seed, rows=args.rows, width=args.width, rate=args.rate, begin=args.begin)
        print(f"trained in {time.time() - started:.0f} s", flush=True)
        export.export(model, tokenizer, pieces, f16)
        for folder, bits in ((int8, "8"), (int4, "4")):
            shutil.rmtree(folder, ignore_errors=True)
            evaluate.run(args.glm, "quantize", str(f16), str(folder), "--bits", bits)
        record(export.rounded(model), tokenizer, args.work / "goldens")
        if args.bundle:
            for source, target in ((f16, HERE / "f16"), (int4, HERE / "int4"), (args.work / "goldens", HERE.parent / "tests/models/demo")):
                shutil.copytree(source, target, dirs_exist_ok=True)
    report, wrong = evaluate.skills(args.glm, ["-m", str(int4)], args.cases, args.seed)
    report["perplexity"] = {
        name: round(evaluate.perplexity(args.glm, tokenizer, folder, activations, 200, args.seed), 4)
        for name, folder, activations in (("f32", f16, "f32"), ("int8", int8, "int8"), ("int4", int4, "int8"))
    }
    (args.work / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (args.work / "wrong.txt").write_text("".join(f"{s} {l} {e} → {t}\n" for s, l, e, t in wrong))
    print(json.dumps(report["perplexity"]))
    print(f"done in {time.time() - started:.0f} s; what went wrong: {args.work / 'wrong.txt'}")


main()
