"""Computes the logits in lora.rs with peft and transformers: random adapters of the small models, from the same generator as there.

Usage: python lora.py (peft 0.21.2, transformers 5.24, torch 2.15)
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

MODELS = Path(__file__).parent / "models"
LAYER = "model.layers.0."
ALL = [LAYER + "self_attn." + part for part in ["q_proj", "k_proj", "v_proj", "o_proj"]]
ALL += [LAYER + "mlp.gate_up_proj", LAYER + "mlp.down_proj", "lm_head"]
IDS = [1, 5, 3, 8, 2, 7]

CASES = [
    ("glm-4-0414-layer", 7, ALL, lambda _: 4, {"r": 4, "lora_alpha": 8}),
    (
        "glm-4-0414-layer",
        8,
        ALL,
        lambda path: 2 if path.endswith("k_proj") else 6 if path.endswith("mlp.down_proj") else 3,
        {
            "r": 3,
            "lora_alpha": 5,
            "rank_pattern": {"k_proj": 2, r"layers\.\d\.mlp\.down_proj": 6},
            "alpha_pattern": {"self_attn.q_proj": 9, "^lm_head": 1, "v_proj|o_proj": 2},
        },
    ),
    (
        "glm-4-9b-chat-hf-layer",
        9,
        [ALL[0], ALL[2], ALL[4]],
        lambda _: 5,
        {"r": 5, "lora_alpha": 4, "use_rslora": True},
    ),
]


class Lcg:
    def __init__(self, state):
        self.state = state

    def tensor(self, rows, cols):
        out = np.empty(rows * cols, np.float32)
        for i in range(out.size):
            self.state = (self.state * 1664525 + 1013904223) % 2**32
            out[i] = (np.float32(self.state >> 8) / np.float32(1 << 24) - np.float32(0.5)) * np.float32(0.5)
        return torch.from_numpy(out.reshape(rows, cols))


for name, seed, modules, rank, fields in CASES:
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / name, dtype=torch.float64, attn_implementation="eager"
    )
    lcg, tensors = Lcg(seed), {}
    for path in modules:
        outputs, inputs = model.get_submodule(path).weight.shape
        prefix = f"base_model.model.{path}.lora_"
        tensors[prefix + "A.weight"] = lcg.tensor(rank(path), inputs)
        tensors[prefix + "B.weight"] = lcg.tensor(outputs, rank(path))
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": modules, **fields}
        (Path(folder) / "adapter_config.json").write_text(json.dumps(config))
        tuned = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()
    with torch.no_grad():
        logits = tuned(input_ids=torch.tensor([IDS])).logits[0]
    for row in (logits[0], logits[-1]):
        print(name, seed, [round(x, 5) for x in row.tolist()])
