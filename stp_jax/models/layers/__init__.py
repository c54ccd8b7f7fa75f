"""Layers shared by the models: channels last, torch's conventions, fast on every platform."""
