"""Result rows with their protocol, figures and scene views; draws arrays and knows no model."""
