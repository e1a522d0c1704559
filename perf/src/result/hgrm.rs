//! `.hgrm`: percentile distributions as HdrHistogram writes them and its plotter reads them.
//!
//! Four columns: value, percentile as a fraction, count up to there, 1/(1-percentile); then lines in `#[…]`, the footer.
//! Values are milliseconds here; others' may be in another unit, which the files do not tell.

use std::fmt::Write as _;

use super::Recorded;
use super::quantile::QUANTILES;

/// Steps to each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOS_PER_MILLISECOND: f64 = 1e6;
/// How the line of the footer with a histogram's name begins; other tools have none.
const NAME_LINE: &str = "#[Histogram = ";
const FITS: &str = "a string takes any text";

/// The distribution of a histogram, with a point at each of [`QUANTILES`] besides the usual ones.
pub fn text(name: &str, recorded: &Recorded) -> String {
    let histogram = &recorded.0;
    let mut quantiles: Vec<f64> =
        histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE).map(|step| step.quantile_iterated_to()).collect();
    quantiles.extend(QUANTILES.map(|(_, quantile)| quantile));
    quantiles.sort_by(f64::total_cmp);
    quantiles.dedup();
    let mut buckets =
        histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).peekable();
    let mut count = 0;
    let mut text = format!("{:>16} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for quantile in quantiles {
        let nanos = histogram.value_at_quantile(quantile);
        while let Some((_, more)) = buckets.next_if(|&(value, _)| value <= histogram.highest_equivalent(nanos)) {
            count += more;
        }
        let value = nanos as f64 / NANOS_PER_MILLISECOND;
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(text, "{value:16.6} {quantile:14.12} {count:>10} {inverse:>14.2}").expect(FITS);
        } else {
            writeln!(text, "{value:16.6} {quantile:14.12} {count:>10} {:>14}", "inf").expect(FITS);
        }
    }
    let (mean, deviation) = (histogram.mean() / NANOS_PER_MILLISECOND, histogram.stdev() / NANOS_PER_MILLISECOND);
    writeln!(text, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]").expect(FITS);
    let max = histogram.max() as f64 / NANOS_PER_MILLISECOND;
    writeln!(text, "#[Max     = {max:12.6}, Total count    = {:12}]", histogram.len()).expect(FITS);
    let sub_buckets = 2_u32 << (2 * 10_u32.pow(u32::from(histogram.sigfig())) - 1).ilog2();
    writeln!(text, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", histogram.buckets()).expect(FITS);
    writeln!(text, "{NAME_LINE}{}]\n#[Values in milliseconds]", name.replace(['\n', '\r', ']'], " ")).expect(FITS);
    text
}

/// Points of a distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// What was measured; empty where the file does not say.
    pub name: String,
    /// Values, where the file says.
    pub count: Option<u64>,
    /// Quantile and nanoseconds, both rising; the last quantile is 1.
    pub points: Vec<(f64, f64)>,
}

impl Distribution {
    /// Reads what [`text`] or another tool has written; also the whole output of wrk2, of which it is a part, and the
    /// comma-separated variant. `nanos_per_unit` says what a value of 1 means.
    ///
    /// # Errors
    /// The number of the line, from 1, and what is wrong with it.
    pub fn parse(text: &str, nanos_per_unit: f64) -> Result<Self, (usize, String)> {
        let is_header = |line: &str| line.contains("Value") && line.contains("Percentile");
        let skipped = text.lines().position(is_header).map_or(0, |index| index + 1);
        let mut found = Self { name: String::new(), count: None, points: Vec::new() };
        let mut last_line = skipped;
        let mut is_footer = false;
        for (number, line) in text.lines().enumerate().skip(skipped).map(|(index, line)| (index + 1, line.trim())) {
            last_line = number;
            if line.starts_with('#') {
                is_footer = true;
                found.take_footer(line);
            } else if !line.is_empty() && !is_footer {
                let point = point(line, nanos_per_unit).map_err(|reason| (number, reason))?;
                if found.points.last().is_some_and(|last| point.0 < last.0 || point.1 < last.1) {
                    return Err((number, "percentiles and values have to rise".to_owned()));
                }
                found.points.push(point);
            }
        }
        match found.points.last() {
            None => Err((last_line.max(1), "no percentiles in it: neither a result nor an .hgrm file".to_owned())),
            Some(&(quantile, _)) if quantile < 1.0 - 1e-9 => {
                Err((last_line, format!("cut off: it ends at {quantile}, and not at 1, the longest")))
            }
            Some(_) => Ok(found),
        }
    }

    fn take_footer(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix(NAME_LINE) {
            name.trim_end_matches(']').clone_into(&mut self.name);
        }
        // Java and wrk2 spell it in two words, Python in one, and with a fraction.
        let count = line.split_once("Total count").or_else(|| line.split_once("TotalCount"));
        let count = count.and_then(|(_, count)| count.trim_matches(['=', ' ', ']']).split('.').next()?.parse().ok());
        self.count = self.count.or(count);
    }

    /// The value of the first point at or beyond a quantile, in nanoseconds: it may be that of a higher quantile, as the
    /// points lie.
    pub fn nanos_at(&self, quantile: f64) -> Option<f64> {
        // Percentiles are written with twelve digits.
        self.points.iter().find(|(own, _)| *own >= quantile - 1e-12).map(|&(_, nanos)| nanos)
    }
}

/// Quantile and nanoseconds of one line.
fn point(line: &str, nanos_per_unit: f64) -> Result<(f64, f64), String> {
    let fields: Vec<&str> = line.split([' ', '\t', ',']).filter(|field| !field.is_empty()).collect();
    // In the last line some tools leave out what would be infinite.
    let is_last = fields.len() == 3 && fields[1].parse() == Ok(1.0);
    if fields.len() != 4 && !is_last {
        return Err("not a line of a percentile distribution: value, percentile, count, 1/(1-percentile); nor is the \
                    file a result of lepus-perf or a histogram log"
            .to_owned());
    }
    let number = |field: &str| field.parse::<f64>().map_err(|_| format!("'{field}' is no number"));
    let (value, quantile) = (number(fields[0])?, number(fields[1])?);
    fields[2..].iter().try_for_each(|field| number(field).map(|_| ()))?;
    if !(0.0..=1.0).contains(&quantile) || !(0.0..=1e15).contains(&value) {
        return Err("a percentile is a fraction from 0 to 1, a value is not negative".to_owned());
    }
    Ok((quantile, value * nanos_per_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what was written is read back, exactly at the quantiles of tables.
    #[test]
    fn a_distribution_comes_back() {
        let mut recorded = Recorded::default();
        for nanos in 1..=100_000_u64 {
            recorded.record(nanos * 100);
        }
        let distribution = Distribution::parse(&text("service", &recorded), 1e6).expect("our own file");
        assert_eq!((distribution.name.as_str(), distribution.count), ("service", Some(100_000)));
        for (name, quantile) in QUANTILES.into_iter().chain([("max", 1.0)]) {
            let (found, right) = (distribution.nanos_at(quantile), recorded.0.value_at_quantile(quantile));
            // Six digits of a millisecond are a nanosecond.
            assert!((found.expect("there") - right as f64).abs() < 0.6, "{name}: {found:?} {right}");
        }
    }

    /// Goal: the count beside a value is that of all up to it.
    #[test]
    fn counts_are_cumulative() {
        let mut recorded = Recorded::default();
        for nanos in [1_000_000, 2_000_000, 2_000_000, 5_000_000] {
            recorded.record(nanos);
        }
        let text = text("", &recorded);
        let counts: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("  ") && !line.contains("Value"))
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        assert_eq!((counts.first(), counts.last()), (Some(&"1"), Some(&"4")));
        assert!(counts.contains(&"3") && !counts.contains(&"2"), "{counts:?}");
        assert!(text.contains("Buckets") && text.contains("2048"), "{text}");
    }

    const WRK2: &str = "Running 30s test @ http://127.0.0.1:80/index.html\n  2 threads and 100 connections\n\
        \x20 Detailed Percentile spectrum:\n       Value   Percentile   TotalCount 1/(1-Percentile)\n\n\
        \x20      0.921     0.000000            1         1.00\n       6.195     0.500000         2007         2.00\n\
        \x20     24.735     1.000000         4014          inf\n\
        #[Mean    =        6.324, StdDeviation   =        3.001]\n#[Max     =       24.720, Total count    =         4014]\n\
        ----------\n  60018 requests in 30.00s, 19.81MB read\nRequests/sec:   2000.28\n";

    /// Goal: files of other tools are read, in the unit that is said.
    #[test]
    fn other_tools() {
        let found = Distribution::parse(WRK2, 1e6).expect("wrk2");
        assert_eq!((found.points.len(), found.count), (3, Some(4014)));
        assert_eq!(found.nanos_at(0.5), Some(6_195_000.0));
        assert_eq!(Distribution::parse(WRK2, 1e3).expect("wrk2").nanos_at(0.5), Some(6195.0));
        let python = "Value Percentile TotalCount 1/(1-Percentile)\n\n2.0 0.5 1 2.00\n4.0 1.000000000000 2\n\
            #[Max     =       4.000, TotalCount     =        2.000]\n";
        let found = Distribution::parse(python, 1e6).expect("Python");
        assert_eq!((found.nanos_at(1.0), found.count), (Some(4e6), Some(2)));
        let csv = "\"Value\",\"Percentile\",\"TotalCount\",\"1/(1-Percentile)\"\n1.0,0.0,1,1.00\n2.5,1.0,2,Infinity\n";
        assert_eq!(Distribution::parse(csv, 1e6).expect("CSV").nanos_at(1.0), Some(2_500_000.0));
    }

    /// Goal: damage is told by line; a file cut off anywhere is refused.
    #[test]
    fn refusals() {
        let check = |text: &str, line: usize, expected: &str| {
            let (number, reason) = Distribution::parse(text, 1e6).expect_err("refused");
            assert!(number == line && reason.contains(expected), "{number}: {reason}");
        };
        check("", 1, "no percentiles");
        check("1 0.5 1 2\nhello\n", 2, "not a line");
        check("1 0.5 1 2\n2 0.4 1 2\n", 2, "have to rise");
        check("1 1.5 1 2\n", 1, "fraction");
        check("x 0.5 1 2\n", 1, "'x' is no number");
        check("1 0.5 1 2\n", 1, "cut off");
        for octets in WRK2.find("0.921").expect("there")..=WRK2.find("1.000000").expect("there") + 8 {
            assert!(Distribution::parse(&WRK2[..octets], 1e6).is_err(), "{octets}");
        }
    }
}
