"""The three kinds of process and what joins them: the parent, control, the workers, and the channel."""
