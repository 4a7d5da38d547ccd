"""The architecture of ChatGLM-6B, with small sizes. Tensor names and layouts are those of the published checkpoint."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# The published code scales residuals by √(2·28), independent of the number of layers.
ALPHA = math.sqrt(2 * 28)


@dataclass
class Config:
    vocab_size: int
    hidden_size: int = 256
    num_layers: int = 6
    num_attention_heads: int = 8
    inner_hidden_size: int = 1024
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 512

    @property
    def head_size(self):
        return self.hidden_size // self.num_attention_heads


def rotary_table(config):
    """cos and sin of every position, [positions, head_size / 2]: for one half of a head. Frequencies are rounded to float16."""
    half = config.head_size // 2
    frequencies = (1.0 / 10000 ** (torch.arange(0, half, 2).float() / half)).half().float()
    angles = torch.arange(config.max_sequence_length).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x, rotary, mask):
        batch, tokens, hidden = x.shape
        # Packed per head: q, k, v of head 0, then of head 1, …
        q, k, v = self.query_key_value(x).view(batch, tokens, self.heads, 3 * self.head_size).transpose(1, 2).chunk(3, -1)
        cos, sin = rotary
        # `rotary` has the angles of both halves of a head, which are rotated separately (2D RoPE).
        q, k = (torch.cat([rotate(h, c, s) for h, c, s in zip(x.chunk(2, -1), cos, sin)], -1) for x in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.dense(y.transpose(1, 2).reshape(batch, tokens, hidden))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, x):
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        norm = lambda: nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.attention, self.mlp = Attention(config), Mlp(config)

    def forward(self, x, rotary, mask):
        a = self.input_layernorm(x)
        m = self.post_attention_layernorm(a * ALPHA + self.attention(a, rotary, mask))
        return m * ALPHA + self.mlp(m)


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)


class Glm(nn.Module):
    """The head is tied to the embedding."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        cos, sin = rotary_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialise()

    def initialise(self):
        """Initial weights with a gain that is large enough for a residual scaled by √56."""
        for name, parameter in self.named_parameters():
            if "layernorm" in name:
                continue
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            elif "embeddings" in name:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                gain = 2.0 if "dense" in name and "h_to_4h" not in name else 1.0
                nn.init.normal_(parameter, std=gain * parameter.shape[1] ** -0.5)

    def forward(self, ids, positions, mask):
        """ids [batch, tokens], positions [batch, 2, tokens], mask [batch, 1, tokens, tokens] (true: visible) → [batch, tokens, hidden]."""
        gather = lambda table: [table[positions[:, row]][:, None] for row in (0, 1)]
        rotary = gather(self.cos), gather(self.sin)
        x = self.transformer.word_embeddings(ids)
        for layer in self.transformer.layers:
            x = layer(x, rotary, mask)
        return self.transformer.final_layernorm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.transformer.word_embeddings.weight)
