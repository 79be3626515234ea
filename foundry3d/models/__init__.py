"""The parts of a model in reading order: tokenizer, vit, supertokens, gate, backbone, student."""
