import pytest

from invented import invented
from longtake.plan.plans import inverted, vanilla
from longtake.plan.table import ranges, table, tokens


@pytest.mark.parametrize(
    ("height", "width", "count"), [(640, 608, 17500), (480, 832, 17966), (512, 512, 11776), (256, 256, 2944)]
)
def test_tokens_of_a_section(height, width, count):
    for section in (*vanilla(2), *inverted(5)):
        assert tokens(section, height, width) == count


def test_table_says_everything():
    lines = table(inverted(5), 640, 608).splitlines()
    assert len(lines) == 6
    assert lines[1].split()[0] == "4"
    assert "37-45 @28-36" in lines[1] and "0, zeros @0, 37" in lines[1] and "16 zeros @40-55" in lines[1]
    assert "1-9 @1-9" in lines[5] and "11-12 @11-12" in lines[5] and lines[5].endswith("17500")
    assert len({len(line) for line in lines}) == 1


def test_table_shows_any_scales():
    lines = table(invented(), 64, 64).splitlines()
    assert lines[0].split("  ")[0] == "section"
    assert [f"sees {scale}x" in lines[0] for scale in (1, 2, 4, 8)] == [True] * 4
    assert "4, 8 @20, 24" in lines[1] and "sees" not in lines[1]
    assert "0, 2 zeros @30-32" in lines[3]
    assert "5, 7 @5, 7" in lines[4]


def test_table_of_a_long_plan_leaves_out_its_middle():
    lines = table(vanilla(250_000), 64, 64).splitlines()
    assert len(lines) == 1002
    assert lines[501] == "… 249000 sections more …"
    assert lines[500].split()[0] == "499" and lines[502].split()[0] == "249500"
    assert len(table(vanilla(1000), 64, 64).splitlines()) == 1001


def test_ranges():
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([None]) == "zeros"
    assert ranges([0, 9, 10, None, None]) == "0, 9-10, 2 zeros"
