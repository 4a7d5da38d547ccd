"""A small GLM, trained from scratch: data, tokenizer, training, evaluation, export. See README.md."""
