"""Training logs: read in both places, summed up in a table, drawn."""

import pytest

pytest.importorskip("matplotlib")

from mi2v_lite.training import curves  # noqa: E402 - imports matplotlib

ROWS = "step,loss,lr,seconds,heldout_loss\n10,2.0,1e-3,0.5,\n20,1.0,1e-3,0.7,\n20,,,,1.5\n"


def test_logs_of_the_trainer_and_shipped_ones_are_read_alike(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "log.csv").write_text("step,loss,lr,seconds\n10,2.0,1e-3,0.5\n20,1.0,1e-3,0.7\n")
    a, b = curves.read_logs(tmp_path)
    assert (a.name, b.name) == ("a", "b")
    assert a.loss[0].tolist() == [10, 20] and a.heldout[1].tolist() == [1.5] and b.heldout[1].tolist() == []
    assert a.minutes == pytest.approx((10 * 0.5 + 10 * 0.7) / 60)
    assert "| a | to 20 | 0 | 1.5000 (heldout_loss) |" in curves.markdown([a, b])
    drawn = curves.picture([a, b])
    assert "a, b" in drawn.alt and drawn.image.width > 600


def test_what_is_no_log_is_named(tmp_path):
    with pytest.raises(ValueError, match="no training logs"):
        curves.read_logs(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="x.csv is not a training log"):
        curves.read_logs(tmp_path)
