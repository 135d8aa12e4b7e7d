//! Checks that pictures decode and contain the expected texts.

use super::*;
use crate::simulation::{Bucket, Waits};

fn report() -> Report {
    let bucket = |n: u32| Bucket {
        from_seconds: f64::from(n),
        arrivals: u64::from(n % 7),
        depth: f64::from(n % 11),
        depth_max: u64::from(n % 11),
        desired: 3.0,
        workers: 3.0,
        ready: 2.0,
        busy: f64::from(n % 3),
    };
    Report {
        seconds: 600.0,
        jobs: 1_800,
        finished: 1_800,
        unfinished: 0,
        redone: 0,
        wait_seconds: Waits::default(),
        depth_max: 10,
        worker_hours: 0.5,
        busy_hours: 0.2,
        utilisation: 0.4,
        workers_max: 3,
        workers_started: 3,
        scaled_up: 1,
        scaled_down: 1,
        evaluations: 10,
        changes: Vec::new(),
        timeline: (0..600).map(bucket).collect(),
    }
}

fn drawn(labels: &[&str], format: Format) -> Vec<u8> {
    let report = report();
    let panel = |label| Panel { label, note: "wait p95 1.0 s".to_owned(), report: &report };
    let panels: Vec<_> = labels.iter().map(|label| panel(*label)).collect();
    Picture { title: "browser <&> friends", panels: &panels }.draw(format).unwrap()
}

#[test]
fn the_names_end_tells_the_format() {
    assert_eq!(Format::of(Path::new("a/b.SVG")).unwrap(), Format::Svg);
    assert_eq!(Format::of(Path::new("b.png")).unwrap(), Format::Png);
    assert!(Format::of(Path::new("b.jpg")).unwrap_err().to_string().contains(".svg or .png"));
}

#[test]
fn a_png_decodes_to_its_size_and_has_text_in_it() {
    let file = drawn(&["as configured", "cooldown_seconds=30"], Format::Png);
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (WIDTH * PNG_SCALE, chart::height(2) * PNG_SCALE));
    // The title: without a font it would be empty, or a box of one colour.
    let row = info.line_size;
    let title = &pixels[row * 24..row * 64];
    let dark = title.chunks(3).filter(|pixel| pixel[0] < 0x60).count();
    let between = title.chunks(3).filter(|pixel| (0x60..0xf0).contains(&pixel[0])).count();
    assert!(dark > 500 && between > 200, "{dark} dark, {between} smoothed");
}

#[test]
fn an_svg_is_xml_and_keeps_its_text() {
    let text = String::from_utf8(drawn(&["as configured", "scaling.strategy=\"backlog\""], Format::Svg)).unwrap();
    let document = roxmltree::Document::parse(&text).expect("it is XML");
    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
    for expected in
        ["browser <&> friends", "Workers: as configured", "Workers: scaling.strategy=\"backlog\"", "wait p95 1.0 s"]
    {
        assert!(texts.contains(&expected), "{expected} in {texts:?}");
    }
    assert!(!text.contains("NaN") && !text.contains("inf"), "every coordinate is a number");
}

#[test]
fn nothing_at_all_can_be_drawn() {
    let empty = Report { seconds: 0.0, timeline: vec![Bucket::default()], depth_max: 0, workers_max: 0, ..report() };
    let panels = [Panel { label: "", note: String::new(), report: &empty }];
    for format in [Format::Svg, Format::Png] {
        assert!(!Picture { title: "", panels: &panels }.draw(format).unwrap().is_empty());
    }
}
