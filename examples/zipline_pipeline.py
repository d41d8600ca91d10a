"""Features in a pipeline of Zipline-reloaded, as known before each session opened. Needs `pip install zipline-reloaded`."""

from __future__ import annotations

import pandas as pd
import sqlalchemy
from sample_store import sample_store
from zipline.assets import AssetDBWriter, AssetFinder
from zipline.pipeline import Pipeline
from zipline.pipeline.domain import US_EQUITIES
from zipline.pipeline.engine import SimplePipelineEngine

from asof.bridges import zipline as bridge


def finder_of(names: list[str]) -> AssetFinder:
    """Where Zipline looks assets up; a data bundle brings one. Here they are made up."""
    engine = sqlalchemy.create_engine("sqlite://")
    day = pd.Timestamp("2024-01-01")
    assets = {"symbol": names, "start_date": day, "end_date": day + pd.Timedelta(days=400), "exchange": "SAMPLE"}
    exchanges = pd.DataFrame([{"exchange": "SAMPLE", "canonical_name": "SAMPLE", "country_code": "US"}])
    AssetDBWriter(engine).write(equities=pd.DataFrame(assets, index=range(1, len(names) + 1)), exchanges=exchanges)
    return AssetFinder(engine)


def main() -> pd.DataFrame:
    """Print what the pipeline answers: of each session the instruments that rose, the calmest first."""
    start, end = pd.Timestamp("2024-03-04"), pd.Timestamp("2024-03-08")
    with sample_store() as store:
        frames = bridge.frames(store, ["fs_v1:ret_1", "fs_v1:vol_20"], "1d", US_EQUITIES.sessions().to_series()[start:end], known_at=None)
    names = list(frames["ret_1"].columns)
    finder = finder_of(names)
    features, get_loader = bridge.data_set(frames, {asset.symbol: asset for asset in finder.retrieve_all(finder.sids)})
    rose = features.ret_1.latest > 0
    pipeline = Pipeline({"ret_1": features.ret_1.latest, "calm": features.vol_20.latest.rank(mask=rose)}, screen=rose, domain=US_EQUITIES)
    found = SimplePipelineEngine(get_loader, finder).run_pipeline(pipeline, start, end)
    print(found.to_string())
    return found


if __name__ == "__main__":
    main()
