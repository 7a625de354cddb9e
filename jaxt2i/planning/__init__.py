"""What a run would cost on machines that are not here: compiled, counted, predicted."""
