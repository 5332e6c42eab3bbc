import html.parser
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from hrnas.arch.budget import format_count
from hrnas.costing.analytic import block_cost, place_blocks
from hrnas.errors import InputError
from hrnas.reporting.networks import budget_networks
from hrnas.reporting.pictures import MAX_BYTES, MAX_PICTURES, MAX_WIDTH, embed
from hrnas.reporting.record import Picture, RunRecord
from hrnas.reporting.report import render, write_report
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.tables import format_change, format_duration, format_percent
from reporting.run_directories import picture, write_family, write_lines, write_run
from reporting.scorings import SEGMENTATION

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "[red]car", "x" * 80)


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and collects text, sections, pictures and whatever would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        assert not [name for name in found if name.startswith("on")]
        if tag == "section":
            self.sections.append(found["id"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_text(search_record: RunRecord) -> str:
    return render(search_record)


def test_the_page_nests_and_has_its_sections_in_order(page_text: str) -> None:
    page = Page(page_text)
    assert page.sections == [
        "result",
        "curves",
        "network",
        "costs",
        "parts",
        "predictions",
        "blocks",
        "run",
        "commands",
    ]
    for drawing in re.findall(r"<svg xmlns.*?</svg>", page_text, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert len(re.findall(r"<svg xmlns", page_text)) == 6


def test_nothing_is_loaded_and_nothing_runs(page_text: str) -> None:
    page = Page(page_text)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    links = set(re.findall(r"https?://[^\"' <)]*", page_text))
    assert links == {"http://www.w3.org/2000/svg"}  # the name of SVG's namespace; nothing is fetched from it
    assert "url(" not in page_text
    assert "@import" not in page_text


def test_the_page_has_the_numbers_of_the_files(search_run: Path, search_record: RunRecord, page_text: str) -> None:
    text = Page(page_text).text
    result = json.loads((search_run / "result.json").read_text())
    evaluation = json.loads((search_run / "evaluation.json").read_text())
    for side in ("supernet", "found"):
        for count in ("macs", "params"):
            assert f"{result[side][count]:,}" in text
    for split in ("validation", "test"):
        assert f"{evaluation[split]['miou']:.4f}" in text
        assert f"{evaluation[split]['pixel_accuracy']:.4f}" in text
        for item in evaluation[split]["parts"]["rows"]:
            assert item["name"] in text
            assert item["value"] is None or f"{item['value']:.4f}" in text
    assert "MACs at 180×240" in text
    assert "FLOP" not in text
    for command in (
        "hrnas search camvid.yaml --run search --seed 7",
        f"hrnas evaluate {search_run}",
        f"hrnas predict {search_run} FILES",
    ):
        assert command in text
    assert "hrnas resume" not in text
    assert "torch 2.13.0" in text


def test_the_block_table_has_every_surviving_channel(search_record: RunRecord, page_text: str) -> None:
    assert search_record.architecture is not None
    assert search_record.supernet is not None
    rows = dict(re.findall(r"<tr[^>]*><th>((?:stages|head)\.[^<]*)</th>(.*?)</tr>", page_text, re.DOTALL))
    full = dict(search_record.supernet.blocks())
    placed = {item.name: item for item in place_blocks(search_record.architecture, search_record.input_size)}
    assert list(rows) == [name for name, _ in search_record.architecture.blocks()]
    for name, block in search_record.architecture.blocks():
        cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", rows[name], re.DOTALL)]
        left = dict(block.kernels)
        expected = [f"{left.get(size) or '–'}/{widest}" for size, widest in full[name].kernels]
        assert cells[3:6] == expected
        macs = block_cost(placed[name], search_record.architecture.token_size).macs
        assert cells[6] == format_count(macs)


def test_the_page_of_a_head_of_classes_tells_of_it_and_of_squeeze_excitation(
    squeezed_record: RunRecord, page_text: str
) -> None:
    page = render(squeezed_record)
    text, architecture = Page(page).text, squeezed_record.architecture
    assert architecture is not None
    rows = dict(re.findall(r"<tr[^>]*><th>((?:stages|head)\.[^<]*)</th>(.*?)</tr>", page, re.DOTALL))
    blocks = dict(architecture.blocks())
    assert list(rows) == list(blocks)
    cells = {name: re.findall(r"<td[^>]*>([^<]*)", row) for name, row in rows.items()}
    assert {name: row[6] for name, row in cells.items()} == {n: str(b.squeeze or "–") for n, b in blocks.items()}
    assert cells["head.down.2"][0] == "head, carries branch 3 down"
    squeezed = sum(block.squeeze > 0 for block in blocks.values())
    assert 0 < squeezed < len(blocks)
    assert f"The activation is swish; {squeezed} of {len(blocks)} blocks have squeeze-excitation." in text
    assert "The head widens every branch" in text
    assert "joined" not in text
    # A network with a dense head and without squeeze-excitation says nothing of either.
    dense = Page(page_text).text
    assert "The activation is relu." in dense
    assert "at the head, joined" in dense
    assert not [word for word in ("queeze", "widens every") if word in dense]


def test_new_fields_that_are_null_change_nothing(search_run: Path, tmp_path: Path) -> None:
    """An older run is shown as it was: what is not there leaves no column, no panel and no word."""
    run = Path(shutil.copytree(search_run, tmp_path / "search"))
    page = report_of(run)
    new = {"gain": None, "planned_params": None, "params": None, "budget": None, "tokens": None, "output_change": None}
    for name in ("metrics.jsonl", "architectures.jsonl"):
        write_lines(run / name, [new | json.loads(line) for line in (run / name).read_text().splitlines()])
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"budgets": None, "budget_params": None}))
    assert report_of(run) == page
    text = Page(page).text
    for word in ("oken", "ransformer", "Gain on", "Change of", "etworks", "Every cut"):
        assert word not in text


def test_the_page_of_a_search_for_several_networks(family_run: Path, family_record: RunRecord) -> None:
    page_text = render(family_record)
    page = Page(page_text)
    assert page.sections[:3] == ["networks", "result", "curves"]
    table = re.search(r'<table class="networks">.*?</table>', page_text, re.DOTALL)
    assert table is not None
    rows = [
        [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr.*?</tr>", table[0], re.DOTALL)[1:]
    ]
    files = json.loads((family_run / "pareto.json").read_text())["networks"]
    assert [row[0] for row in rows] == [file["budget"] for file in files]
    for row, file in zip(rows, files, strict=True):
        assert row[1] == f"{file['macs']:,} {format_count(file['macs'])}"
        assert row[3] == f"{file['params']:,} {format_count(file['params'])}"
    assert [row[4] for row in rows] == ["0.5500", f"{budget_networks(family_record)[1].score:.4f}", "0.4500"]
    assert [row[5] for row in rows] == ["0.5200", "–", "0.4200"]
    assert [row[6] for row in rows] == [files[0]["folder"], files[1]["folder"], "this run"]
    assert [row[7] for row in rows] == ["finished", "at step 250 of 1,000", "finished"]
    assert f"hrnas train {family_run}/{files[1]['folder']}" in page.text
    assert f"hrnas train {family_run}/{files[0]['folder']}" not in page.text
    assert "networks 3 2 of 3 finished" in page.text
    assert "The smallest network" in page.text


def test_every_cut_is_in_its_table(family_record: RunRecord) -> None:
    table = re.search(r'<table class="cuts">.*?</table>', render(family_record), re.DOTALL)
    assert table is not None
    rows = [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr.*?</tr>", table[0], re.DOTALL)
    ]
    assert rows[0] == [
        "Step",
        "Reason",
        "Units cut",
        "Units left",
        "Tokens left",
        "MACs left",
        "Change of output",
        "Budget met",
    ]
    assert rows[1:] == [
        [
            f"{cut.step:,}",
            {"dead": "dead units", "budget": "to the budget"}[cut.reason],
            f"{cut.removed:,}",
            f"{cut.units:,}",
            f"{cut.tokens:,}",
            format_count(cut.macs),
            format_change(cut.output_change),
            cut.budget or "",
        ]
        for cut in family_record.cuts
    ]


def test_a_search_under_way_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    run = write_family(tmp_path / "run", set_aside=2, finished=(True, False, False))
    text = Page(report_of(run)).text
    assert "2 of 3 networks are set aside" in text
    assert "not reached yet" in text
    assert "The network so far" in text
    assert f"hrnas resume {run}" in text
    (run / "pareto.json").unlink()
    shutil.rmtree(run / "budgets")
    assert report_of(run).count("<td>set aside, not trained on yet</td>") == 2


def test_a_failed_pareto_file_leaves_the_old_page(family_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(family_run, tmp_path / "run"))
    before = write_report(run).read_bytes()
    (run / "pareto.json").write_text('{"networks": [')
    with pytest.raises(InputError, match=r"pareto\.json is not JSON"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_words_of_the_user_are_text(tmp_path: Path) -> None:
    parts = {name: f"<b>{word}" for name, word in SEGMENTATION.parts.items()}
    hostile = replace(SEGMENTATION, names=HOSTILE, parts=parts, conditions={"<u>boxes": "<u>truth"})
    run = write_run(tmp_path / "a b;<i>", scoring=hostile)
    page = Page(report_of(run))
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text
    assert "script" not in page.tags
    assert not {"i", "b", "u"} & set(page.tags)
    assert "<b>IoU by class" in page.text
    assert "<u>boxes: <u>truth" in page.text
    assert f"hrnas evaluate '{run}'" in page.text


def test_the_same_run_gives_the_same_bytes(search_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(search_run, tmp_path / "search")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.glob("*report*")) == ["report.html"]
    assert not list(run.glob(".report-*"))


def test_a_run_that_was_stopped_gives_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "stopped", stop_at=430)
    page = Page(report_of(run))
    assert page.sections == ["result", "curves", "network", "costs", "blocks", "run", "commands"]
    assert "has come to step 430 of 1,000" in page.text
    assert f"hrnas resume {run}" in page.text
    assert "validation, during the run, step 400 miou 0." in page.text


def test_the_page_of_another_task_has_its_figures_parts_and_conditions(pose_record: RunRecord) -> None:
    page = render(pose_record)
    text = Page(page).text
    assert "validation, 101 samples boxes: ground truth, flip test: yes, decoder: dark" in text
    for score in pose_record.scores.values():
        for name, value in score.figures.items():
            assert f"{name} {'–' if math.isnan(value) else f'{value:.4f}'}" in text
        assert score.parts is not None
        for row in score.parts.rows:
            assert row.name in text
            assert row.value is None or f"{row.value:.4f}" in text
    assert "PCK@0.2 of the torso by joint validation PCK test PCK nose" in text
    section = page[page.index('<section id="parts">') : page.index('<section id="predictions">')]
    assert 'class="n dim"' not in section  # no share, no column of shares
    assert "Validation oks_ap" in text
    for word in ("miou", "IoU", "pixel", "class"):
        assert word not in text.replace("pixels of", "")


def test_a_long_table_of_parts_is_ranked_with_its_middle_folded(classification_record: RunRecord) -> None:
    page = render(classification_record)
    start, end = page.index('<section id="parts">'), page.index('<section id="predictions">')
    shown, folded = re.sub("<details>.*?</details>", "", page[start:end], flags=re.DOTALL), page[start:end]
    values = {name: float(value) for name, value in re.findall(r"<span>(class \d+)</span>.*?>(0\.\d+)</td>", shown)}
    assert len(values) == 40
    assert sorted(values.values(), reverse=True) == list(values.values())
    assert len(set(re.findall(r"<span>(class \d+)</span>", folded))) == 150
    score = classification_record.scores["validation"]
    assert f"150 rows, ranked by top1 on validation; the mean of all is {score.score:.4f} on validation and" in page


@pytest.mark.parametrize("lines", ["", '{"kind": "tra'])
def test_a_run_without_optional_files_gives_a_report(search_run: Path, tmp_path: Path, lines: str) -> None:
    run = tmp_path / "bare"
    run.mkdir()
    shutil.copy(search_run / "config.yaml", run)
    (run / "metrics.jsonl").write_text(lines)
    page = Page(report_of(run))
    assert page.sections == ["result", "run", "commands"]


def test_each_optional_file_may_be_missing(search_run: Path, tmp_path: Path) -> None:
    for entry in search_run.iterdir():
        if entry.name in ("config.yaml", "metrics.jsonl"):
            continue
        run = shutil.copytree(search_run, tmp_path / f"without {entry.name}")
        shutil.rmtree(run / entry.name) if entry.is_dir() else (run / entry.name).unlink()
        Page(render(read_run(run)))


def test_a_train_run_has_no_search_parts(train_run: Path) -> None:
    text = Page(render(read_run(train_run))).text
    assert "The training gave a network of" in text
    for word in ("Supernet", "planned", "penalty", "budget"):
        assert word not in text


def test_a_failed_report_leaves_the_old_one(search_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(search_run, tmp_path / "run")
    before = write_report(run).read_bytes()
    (run / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result\.json"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".report-*"))


def test_a_report_that_cannot_be_put_in_place_leaves_nothing_behind(search_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(search_run, tmp_path / "run")
    (run / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(run)
    assert not list(run.glob(".report-*"))


def test_pictures_are_few_and_bounded(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / f"{index:02d}.png", seed=index)
    noisy = tmp_path / "large.png"
    Image.effect_noise((1500, 600), 90).convert("RGB").save(noisy)  # hard to compress
    pictures = [Picture(split="validation", name=f"{index}", path=tmp_path / f"{index:02d}.png") for index in range(20)]
    pictures += [Picture(split="test", name="large", path=noisy)]
    (tmp_path / "half.png").write_bytes((tmp_path / "00.png").read_bytes()[:200])
    pictures += [Picture(split="test", name="half", path=tmp_path / "half.png")]
    chosen = embed(pictures)
    assert [len(items) for items in chosen.values()] == [MAX_PICTURES - 2, 2]
    assert [item.name for item in chosen["validation"]] == [str(2 * index) for index in range(10)]
    large, half = chosen["test"]
    assert large.width <= MAX_WIDTH
    assert abs(large.width / large.height - 2.5) < 0.02
    assert large.uri is not None
    assert len(large.uri) < MAX_BYTES * 4 / 3 + 100
    assert half.uri is None


@pytest.mark.parametrize(("panels", "size", "narrow"), [(1, (224, 224), 1), (2, (150, 200), 1), (3, (240, 180), 0)])
def test_pictures_of_people_and_crops_are_not_blown_up(
    tmp_path: Path, pose_record: RunRecord, panels: int, size: tuple[int, int], narrow: int
) -> None:
    picture(tmp_path / "one.png", panels, size)
    pictures = (Picture(split="test", name="one", path=tmp_path / "one.png"),)
    assert render(replace(pose_record, predictions=pictures)).count('class="pictures narrow"') == narrow


def test_a_long_list_among_the_options_is_cut_short(pose_record: RunRecord) -> None:
    config = {"data": {"sigmas": [index / 100 for index in range(17)]}, "size": [3, 4], "names": ["a", "b"]}
    text = Page(render(replace(pose_record, config=config))).text
    assert (
        "data.sigmas 0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, … (17 in all) size 3 × 4 names ['a', 'b']" in text
    )


def test_a_picture_that_cannot_be_read_is_said(search_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(search_run, tmp_path / "run")
    (run / "predictions" / "validation" / "street_000.png").write_bytes(b"")
    assert "This picture cannot be read." in Page(report_of(run)).text


def test_the_page_of_a_long_run_is_bounded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", steps=8_000, logged=8_000, pictures=0)
    assert len(report_of(run)) < 200_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.994, "99.4 %"),
        (1.0, "100 %"),
        (8.62, "862 %"),
        (0.00052, "0.052 %"),
        (0.0, "0.0 %"),
        (None, "–"),
    ],
)
def test_shares(share: float | None, text: str) -> None:
    assert format_percent(share).replace("\N{NO-BREAK SPACE}", " ") == text
