"""Checks files of lepus-perf with HdrHistogram of PyPI and with Chromium; `run` beside it prepares both.

Usage: read_back.py LEPUS_PERF SAMPLES, where SAMPLES holds run.json and what was exported from it.
"""

import csv
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter

LEPUS_PERF, SAMPLES = sys.argv[1], pathlib.Path(sys.argv[2])
NANOS_MAX = 3_600_000_000_000
PAGE_SECONDS_MAX = 60


def histogram():
    return HdrHistogram(1, NANOS_MAX, 3)


def lepus_perf(*arguments):
    done = subprocess.run([LEPUS_PERF, *map(str, arguments)], capture_output=True, text=True, cwd=SAMPLES)
    assert done.returncode == 0, done.stderr
    return done.stdout


def logged():
    """Sums of the log's intervals by tag, and how many there are of each."""
    sums, counts = {}, {}
    reader = HistogramLogReader(str(SAMPLES / "run.hlog"), histogram())
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        sums.setdefault(tag, histogram()).add(interval)
        counts[tag] = counts.get(tag, 0) + 1
    reader.close()
    return sums, counts


def interval_log_is_read():
    """Every measured interval of every run is there, and its histograms are those of the JSON file."""
    sums, counts = logged()
    runs = json.loads((SAMPLES / "run.json").read_text())["runs"]
    assert len(sums) == 4 * len(runs), list(sums)
    for run in runs:
        for name in ("response", "service", "send-lag", "confirm"):
            measured = [interval for interval in run["intervals"] if not interval["is_warm_up"]]
            right = histogram()
            for interval in measured:
                right.add(HdrHistogram.decode(interval["histograms"][name]))
            tag = f"{name}/{run['scenario']}/{run['target']['name']}/5000/{run['round']}"
            assert counts[tag] == len(measured) > 0
            assert sums[tag].equals(right) and right.get_total_count() > 0, tag


def distribution_is_right():
    """The points of each .hgrm file are the quantiles that Python finds in the log; the footer is right."""
    sums, _ = logged()
    for target in ("lepus", "rabbitmq"):
        right = histogram()
        for tag, one in sums.items():
            if tag.startswith(f"response/steady/{target}/"):
                right.add(one)
        text = (SAMPLES / f"run.{target}.hgrm").read_text()
        points = [line.split() for line in text.splitlines() if re.match(r"\s+\d", line)]
        assert len(points) > 50
        for value, quantile, count, _ in points:
            nanos = round(float(value) * 1e6)
            # Python rounds to the nearest rank where others take the next: it may be one message off.
            one = 1 / right.get_total_count()
            low, high = (right.get_value_at_percentile(min(max(float(quantile) + by, 0), 1) * 100) for by in (-one, one))
            assert right.get_lowest_equivalent_value(low) <= nanos <= right.get_highest_equivalent_value(high), (quantile, nanos, low, high)
            assert float(quantile) <= int(count) / right.get_total_count() + 1e-9
        assert f"Total count    = {right.get_total_count():12}]" in text
        mean = float(re.search(r"Mean    =\s+([\d.]+)", text).group(1))
        assert abs(mean * 1e6 / right.get_mean_value() - 1) < 1e-3, mean


def csv_is_right():
    """The table has the quantiles that Python finds in the log."""
    sums, _ = logged()
    with open(SAMPLES / "run.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "run"]
    assert len(rows) == 6
    for row in rows:
        one = sums[f"confirm/steady/{row['target']}/5000/{row['round']}"]
        assert int(row["confirm_count"]) == one.get_total_count()
        for percentile in ("50", "99", "99.9"):
            nanos = int(row[f"confirm_p{percentile}_nanos"])
            assert one.values_are_equivalent(nanos, one.get_value_at_percentile(float(percentile))), (percentile, row)


def foreign_files_are_compared():
    """What Python has written is read, with its units, and gives Python's quantiles."""
    own = histogram()
    for micros in range(1, 20_001):
        own.record_value(micros)
    with open(SAMPLES / "python.hgrm", "wb") as file:
        own.output_percentile_distribution(file, 1000)
    with open(SAMPLES / "python.csv.hgrm", "wb") as file:
        own.output_percentile_distribution(file, 1, use_csv=True)
    with open(SAMPLES / "python.hlog", "w") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_legend()
        for second in range(8):
            writer.output_interval_histogram(own, second, second + 1, 1000)
    for name, options in (("python.hgrm", ()), ("python.csv.hgrm", ("--hgrm-unit", "us")), ("python.hlog", ("--hlog-unit", "us"))):
        found = json.loads(lepus_perf("compare", name, "--json", *options))["tables"][0]["columns"][0]["values"]
        for percentile in (50, 90, 99, 100):
            nanos = found["max" if percentile == 100 else f"p{percentile}"]["value"]
            expected = own.get_value_at_percentile(percentile) * 1000
            # A distribution has points only here and there.
            assert expected * 0.998 <= nanos <= expected * 1.15, (name, percentile, nanos, expected)


# What a reader does: points at the plots, hides a line, chooses everything that can be chosen.
READER = """
<script>
addEventListener("error", (event) => { document.body.dataset.failed = event.message; });
addEventListener("load", () => setTimeout(() => {
  try { read(); } catch (error) { document.body.dataset.failed = String(error); }
}, 0));
function read() {
  const found = {};
  const at = (holder, part) => {
    const box = holder.querySelector("svg").getBoundingClientRect();
    holder.querySelector("svg").dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width * part, clientY: box.top + 40 }));
    return holder.querySelector(".tip").innerText;
  };
  const paths = () => document.querySelectorAll("#percentiles path").length;
  found.tip = at(document.getElementById("percentiles"), 0.5);
  found.timeTip = at(document.querySelector("#series .chart"), 0.5);
  found.lines = paths();
  const [first] = document.querySelectorAll("#legend button");
  first.click();
  found.linesWithout = paths();
  first.click();
  found.linesAgain = paths();
  const labels = () => [...document.querySelectorAll("#percentiles text")].map((text) => text.textContent).join(" ");
  found.linear = labels();
  document.getElementById("logarithmic").click();
  found.logarithmic = labels();
  const drawn = () => document.querySelector("#percentiles path").getAttribute("d");
  const choose = document.getElementById("histogram");
  const before = drawn();
  for (const option of [...choose.options]) { choose.value = option.value; choose.dispatchEvent(new Event("change")); }
  found.histograms = choose.options.length;
  found.hasChanged = before !== drawn();
  const ground = () => getComputedStyle(document.body).backgroundColor;
  const light = ground();
  document.getElementById("theme").click();
  found.themes = [light, ground()];
  found.heatMaps = document.querySelectorAll("#heat canvas").length;
  const [canvas] = document.querySelectorAll("#heat canvas");
  found.heatColours = new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size;
  found.alerts = document.getElementById("alerts").innerText;
  found.details = document.getElementById("details").innerText;
  found.injected = document.querySelectorAll("img, b").length;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.found = JSON.stringify(found);
}
</script>
"""


def chromium(*arguments):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium: `apt-get install chromium` brings it"
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=PAGE_SECONDS_MAX)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, "\n".join(said)
    return done.stdout


def page(name, width):
    """What READER finds on a page of this width."""
    opened = SAMPLES / f"opened-{width}.html"
    opened.write_text((SAMPLES / name).read_text().replace("</body>", READER + "</body>"))
    text = chromium(f"--window-size={width},1400", "--virtual-time-budget=3000", "--dump-dom", opened.as_uri())
    failed = re.search('data-failed="([^"]*)"', text)
    assert not failed, failed.group(1)
    found = re.search('data-found="([^"]*)"', text)
    assert found, "the page was not read to its end"
    return json.loads(html.unescape(found.group(1)))


def report_works():
    """The report shows and does what it should, in wide and narrow windows, without a word on the console."""
    for width in (1280, 500):
        found = page("run.html", width)
        assert "percentile" in found["tip"] and "rabbitmq" in found["tip"] and "×" in found["tip"], found["tip"]
        assert "5.00k" in found["timeTip"], found["timeTip"]
        assert [found["lines"], found["linesWithout"], found["linesAgain"]] == [2, 1, 2], found
        assert "µs" not in found["linear"] and "µs" in found["logarithmic"], (found["linear"], found["logarithmic"])
        assert found["histograms"] == 4 and found["hasChanged"]
        assert found["themes"][0] != found["themes"][1]
        assert found["heatMaps"] == 2 and found["heatColours"] > 20, found
        assert "must not be trusted" in found["alerts"] and "<core>" in found["alerts"], found["alerts"]
        assert "</script>" in found["details"] and found["injected"] == 0
        assert found["overflow"] <= 0, f"{found['overflow']} pixels too wide for {width}"


def comparisons_are_pages():
    """A page of a result and a mere distribution, with nothing over time, works as well."""
    lepus_perf("compare", "one.json", "run.lepus.hgrm", "--html", "mixed.html")
    found = page("mixed.html", 1000)
    assert found["lines"] == 2 and found["heatMaps"] == 1, found
    lepus_perf("compare", "run.lepus.hgrm", "--html", "mere.html")
    chromium("--virtual-time-budget=1000", "--dump-dom", (SAMPLES / "mere.html").as_uri())


def screenshots():
    """Where they are asked for."""
    directory = os.environ.get("LEPUS_PERF_SCREENSHOTS")
    if not directory:
        return
    for name, width, height, scheme in (("light", 1280, 3900, 1), ("dark", 1280, 3900, 0), ("narrow", 500, 5600, 1)):
        picture = pathlib.Path(directory, f"{name}.png").resolve()
        chromium(f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={scheme}",
                 f"--screenshot={picture}", (SAMPLES / "run.html").as_uri())


def main():
    failed = 0
    checks = [interval_log_is_read, distribution_is_right, csv_is_right, foreign_files_are_compared, report_works,
              comparisons_are_pages, screenshots]
    for check in checks:
        try:
            check()
            print(f"ok      {check.__name__}", flush=True)
        except Exception as error:  # Whatever it is, the others are still of interest.
            failed += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
