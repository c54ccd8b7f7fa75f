"""SimVP and its translators: feed-forward networks for `models.rollout.rollout_chunks`."""
