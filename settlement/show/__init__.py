"""What a person is shown: lists, derivations and tables for a terminal. Nothing decides here."""
