"""Trains the network; resumes from a saved state."""

import time

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from .batches import IGNORED, Rows
from .network import Config, Glm

SAVE_EVERY = 250


def rate_at(step, steps, warmup=100, decay=0.8):
    """Learning rate schedule: linear warmup, constant, linear decay to 0 over the last `decay` of the steps."""
    return min((step + 1) / warmup, 1.0, max(steps - step, 0) / (steps * decay))


def loss_of(model, batch, device):
    ids, targets, positions, mask = (x.to(device) for x in batch)
    hidden = model(ids, positions, mask)
    wanted = targets != IGNORED
    return F.cross_entropy(model.logits(hidden[wanted]), targets[wanted])


def train(tokenizer, path, *, steps, seed, rows, width, rate=1e-3, config=None, begin=None, log=print):
    """Trains for `steps` steps in total and returns the model. `path` is the saved state. Without it, the initial weights are those of the
    directory `begin`, if given, otherwise random."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    model = Glm(config or Config(vocab_size=len(tokenizer))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if path.exists():
        saved = torch.load(path, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    elif begin:
        model.load_state_dict(load_file(begin / "model.safetensors"))
    # A resumed run gets new examples.
    source = Rows(tokenizer, seed * 1_000_003 + first, rows, width)
    started, shown, total, count = time.time(), time.time(), 0.0, 0
    for step in range(first, steps):
        optimizer.param_groups[0]["lr"] = rate * rate_at(step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, source.batch(), device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total, count = total + loss.item(), count + 1
        if time.time() - shown > 20 or step + 1 == steps:
            speed = (step + 1 - first) * rows * width / (time.time() - started)
            log(f"step {step + 1}/{steps}  loss {total / count:.4f}  {speed:.0f} tokens/s", flush=True)
            shown, total, count = time.time(), 0.0, 0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save(path, model, optimizer, step + 1)
    return model


def save(path, model, optimizer, step):
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
