"""Writes blocks.gguf: two rows of random blocks of each quantized type, and the numbers that gguf-py reads from them.

    pip install gguf numpy && python blocks.py
"""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

random = np.random.default_rng(7)
writer = gguf.GGUFWriter("blocks.gguf", "none")

# Where the f16 numbers of a block lie. Random ones could be anything; these are of the size that weights have.
HALVES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}

for kind, places in HALVES.items():
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = 256 // values
    rows = random.integers(0, 256, (2, blocks, size), dtype=np.uint8)
    for place in places:
        halves = random.normal(0, 0.01, (2, blocks, 1)).astype(np.float16)
        rows[:, :, place:place + 2] = halves.view(np.uint8)
    rows = rows.reshape(2, blocks * size)
    writer.add_tensor(kind.name, rows, raw_dtype=kind)
    writer.add_tensor(f"{kind.name}.values", dequantize(rows, kind).astype(np.float32))

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
