"""Where runs and pictures may lie."""

from pathlib import Path

import pytest

import jaxt2i
from jaxt2i.config import ConfigError
from jaxt2i.run import borrow, files
from jaxt2i.run.folder import Folder


@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://bucket/run", Path("gs://bucket/run")])
def test_a_bucket_is_refused_with_a_way_out(place):
    with pytest.raises(ConfigError, match=r"--workdir gs|s3.*mount the bucket"):
        files.local(place, "--workdir")
    with pytest.raises(ConfigError, match=r"the run .*not to (gs|s3):// buckets"):
        jaxt2i.load(place)
    with pytest.raises(ConfigError, match=r"--out .*not to (gs|s3):// buckets"):
        Folder(place, {})
    with pytest.raises(ConfigError, match=r"config.init_from .*not to (gs|s3):// buckets"):
        borrow.earlier(str(place))


@pytest.mark.parametrize("place", ["runs/x", "/tmp/a:b/c", "C:/runs/x", "~/runs"])
def test_other_places_stay_what_they_are(place):
    assert files.local(place, "--workdir") == Path(place)
