"""A small GLM, made from nothing: data, tokenizer, training, evaluation, export. See README.md."""
