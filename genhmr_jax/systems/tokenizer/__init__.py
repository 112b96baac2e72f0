"""The pose tokenizer of GenHMR."""
