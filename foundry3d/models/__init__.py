"""The parts of a model.

In reading order: tokenizer, vit, backbone; supertokens, gate, entry, student. `budget` is what a
call may ask of a student, `inherit` what a student takes from its teacher; `upsample` brings
features from tokens to points.
"""
