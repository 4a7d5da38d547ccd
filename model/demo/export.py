"""Exports the trained network as a ChatGLM-6B directory in float16, and loads it again."""

import json
import shutil

from safetensors.torch import save_file

from .network import Config, Glm


def config_json(config, tokenizer):
    return {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
            "AutoModelForSeq2SeqLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        "bos_token_id": tokenizer.sop,
        "eos_token_id": tokenizer.eop,
        "mask_token_id": tokenizer.mask,
        "gmask_token_id": tokenizer.gmask,
        "pad_token_id": tokenizer.pad,
        "hidden_size": config.hidden_size,
        "inner_hidden_size": config.inner_hidden_size,
        "layernorm_epsilon": config.layernorm_epsilon,
        "max_sequence_length": config.max_sequence_length,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_layers,
        "position_encoding_2d": True,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


TOKENIZER_CONFIG = {
    "name_or_path": "glm-demo",
    "bos_token": "<sop>",
    "eos_token": "<eop>",
    "end_token": "</s>",
    "gmask_token": "[gMASK]",
    "mask_token": "[MASK]",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "remove_space": False,
    "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer",
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
    "num_image_tokens": 0,
}


def export(model, tokenizer, tokenizer_path, folder):
    """Writes the directory. The head is tied to the embedding (`tie_word_embeddings`) and is not written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().half().cpu().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    write("config.json", config_json(model.config, tokenizer))
    write("tokenizer_config.json", TOKENIZER_CONFIG)
    shutil.copy(tokenizer_path, folder / "ice_text.model")


def rounded(model):
    """The network with the weights of the directory."""
    copy = Glm(Config(**vars(model.config)))
    copy.load_state_dict({name: p.detach().half().float().cpu() for name, p in model.state_dict().items()}, strict=False)
    return copy.eval()
