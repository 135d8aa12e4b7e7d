//! What a benchmark found, as a table for people or as JSON for programs.

use std::ops::RangeInclusive;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

/// Range that a value is to lie in: `0.0..=limit`, `limit..=INFINITY` or `wanted..=wanted`. With both ends infinite
/// there is no aim: the value is shown for information.
pub(crate) type Aim = RangeInclusive<f64>;

/// No aim: the value is for information.
#[allow(dead_code, reason = "some benchmarks have an aim for each value")]
pub(crate) const ANY: Aim = f64::NEG_INFINITY..=f64::INFINITY;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    what: String,
    value: f64,
    unit: &'static str,
    /// Measured in the same run; `ratio` is `value / floor`, and then the aim is for that.
    floor: Option<f64>,
    ratio: Option<f64>,
    /// For the ratio if there is one, else for the value.
    aim: Aim,
    met: bool,
}

impl Finding {
    /// A value with an aim; with a floor, the aim is for the ratio.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str, floor: Option<f64>, aim: Aim) -> Self {
        let ratio = floor.map(|floor| value / floor);
        let met = aim.contains(&ratio.unwrap_or(value));
        Self { what: what.into(), value, unit, floor, ratio, aim, met }
    }
}

fn aim(aim: &Aim) -> String {
    let (least, most) = (aim.start(), aim.end());
    if least.is_infinite() && most.is_infinite() {
        String::new()
    } else if least.total_cmp(most).is_eq() {
        format!("= {least}")
    } else if most.is_infinite() {
        format!("≥ {least}")
    } else {
        format!("≤ {most}")
    }
}

/// Prints the findings.
#[expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
pub(crate) fn print(title: &str, findings: &[Finding], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "bench": title, "findings": findings }))?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(["", "measured", "floor", "ratio", "aim", ""]);
    for finding in findings {
        let aim = aim(&finding.aim);
        let met = match (aim.is_empty(), finding.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "MISSED",
        };
        table.add_row([
            finding.what.clone(),
            shown(finding.value, finding.unit),
            finding.floor.map(|floor| shown(floor, finding.unit)).unwrap_or_default(),
            finding.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            aim,
            met.to_owned(),
        ]);
    }
    println!("{title}\n{table}");
    Ok(())
}

fn shown(value: f64, unit: &str) -> String {
    let is_count = unit.is_empty() && value.fract() == 0.0;
    let digits = if is_count || value.abs() >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$} {unit}")
}
