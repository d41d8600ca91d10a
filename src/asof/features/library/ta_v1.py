"""`ta_v1`: the indicators of `technical`, with the lengths that most charts have."""

from asof.features.expression import bars
from asof.features.feature_set import FeatureSet
from asof.features.library import technical as ta
from asof.features.library.quality import bar_flags


def build() -> FeatureSet:
    """`ta_v1`: bars alone, no events. Each feature has the lookback of its own indicator, so those of short ones come early."""
    close = bars.close
    macd, bands, slow, fast = ta.macd(close), ta.bollinger(close), ta.stochastic(), ta.stochastic_rsi(close)
    aroon, donchian, keltner = ta.aroon(), ta.donchian(), ta.keltner()
    features = {
        "ret_1": ta.returns(close),
        "log_ret_1": ta.log_returns(close),
        "mom_10": ta.momentum(close),
        "roc_10": ta.rate_of_change(close),
        "sma_20": ta.sma(close, 20),
        "ema_20": ta.ema(close, 20),
        "wma_20": ta.wma(close, 20),
        "dema_20": ta.dema(close, 20),
        "tema_20": ta.tema(close, 20),
        "hma_20": ta.hma(close, 20),
        "kama_10": ta.kama(close),
        "rsi_14": ta.rsi(close),
        "macd_12_26": macd.line,
        "macd_signal_9": macd.signal,
        "macd_histogram": macd.histogram,
        "ppo_12_26": ta.ppo(close),
        "trix_15": ta.trix(close),
        "bb_upper_20": bands.upper,
        "bb_middle_20": bands.middle,
        "bb_lower_20": bands.lower,
        "trange": ta.true_range(),
        "atr_14": ta.atr(),
        "natr_14": ta.natr(),
        "plus_di_14": ta.plus_di(),
        "minus_di_14": ta.minus_di(),
        "dx_14": ta.dx(),
        "adx_14": ta.adx(),
        "adxr_14": ta.adxr(),
        "stoch_k_14": slow.k,
        "stoch_d_14": slow.d,
        "stochrsi_k_14": fast.k,
        "stochrsi_d_14": fast.d,
        "willr_14": ta.williams(),
        "cci_20": ta.cci(),
        "mfi_14": ta.mfi(),
        "obv_windowed_20": ta.obv_windowed(),
        "cmf_20": ta.cmf(),
        "vwap_windowed_20": ta.vwap_windowed(),
        "aroon_up_25": aroon.up,
        "aroon_down_25": aroon.down,
        "aroon_oscillator_25": aroon.oscillator,
        "ultosc": ta.ultimate(),
        "donchian_upper_20": donchian.upper,
        "donchian_middle_20": donchian.middle,
        "donchian_lower_20": donchian.lower,
        "keltner_upper_20": keltner.upper,
        "keltner_middle_20": keltner.middle,
        "keltner_lower_20": keltner.lower,
        "volume_z_20": ta.volume_z(),
        "parkinson_20": ta.parkinson(),
        "garman_klass_20": ta.garman_klass(),
        "rogers_satchell_20": ta.rogers_satchell(),
        "yang_zhang_20": ta.yang_zhang(),
    }
    return FeatureSet("ta_v1", features, bar_flags(features))
