"""GS2PM: masked pretraining and prompt tuning over many domains (miaomiaoToday/GS2PM)."""

from stp_jax.models.gs2pm.ms2p import MS2P
from stp_jax.models.gs2pm.network import GS2PM, PRESETS, MaskedOutput, masked_forecast

__all__ = ['GS2PM', 'MS2P', 'PRESETS', 'MaskedOutput', 'masked_forecast']
