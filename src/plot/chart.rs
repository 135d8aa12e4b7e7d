//! Layout of a picture and its charts, in pixels of an SVG. Other backends multiply by a scale.

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, types::RangedCoordf64},
    drawing::{DrawingArea, DrawingAreaErrorKind},
    element::Rectangle,
    prelude::{Cartesian2d, DrawingBackend, PathElement, Text},
    series::{AreaSeries, LineSeries},
    style::{
        Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    Panel, Picture, WIDTH,
    axis::{self, Times},
    fonts::FAMILY,
};
use crate::simulation::Bucket;

const HEADER: u32 = 66;
const ARRIVALS: u32 = 150;
const BACKLOG: u32 = 240;
const WORKERS: u32 = 190;
const FOOTER: u32 = 48;
/// Margins left of the charts, for numbers, and right of them.
const LEFT: u32 = 70;
const RIGHT: u32 = 28;
/// Margins above each chart, for its heading, and below it.
const HEADING: u32 = 30;
const GAP: u32 = 12;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);
const FAINT: RGBColor = RGBColor(0x5f, 0x6b, 0x7a);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const COMING: RGBColor = RGBColor(0x8a, 0x97, 0xa8);
const BUSY: RGBColor = RGBColor(0x2f, 0x6d, 0xb5);
const READY: RGBColor = RGBColor(0xb9, 0xd4, 0xf0);
const WANTED: RGBColor = RGBColor(0xd1, 0x3b, 0x4f);
const AVERAGE: RGBColor = RGBColor(0xb9, 0xd4, 0xf0);
/// Colours of simulations, distinguishable with colour blindness. Source: Okabe and Ito, "Color Universal Design",
/// 2008.
const TELLING: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failure<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// Height of a picture of `panels` simulations, in pixels.
pub(super) fn height(panels: usize) -> u32 {
    HEADER + ARRIVALS + BACKLOG + u32::try_from(panels).unwrap_or(u32::MAX).saturating_mul(WORKERS) + FOOTER
}

/// Draws the whole picture.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    picture: &Picture<'_>,
    scale: u32,
) -> Result<(), Failure<DB>> {
    area.fill(&PAPER)?;
    let end = picture.panels.iter().map(|panel| panel.report.seconds).fold(1e-3, f64::max);
    let canvas = Canvas { scale, end, times: Times::until(end) };
    let (header, rest) = area.split_vertically(canvas.pixels(HEADER));
    canvas.header(&header, picture)?;
    let (arrivals, rest) = rest.split_vertically(canvas.pixels(ARRIVALS));
    canvas.arrivals(&arrivals, picture)?;
    let (backlog, mut rest) = rest.split_vertically(canvas.pixels(BACKLOG));
    canvas.backlog(&backlog, picture)?;
    let highest = picture.panels.iter().map(|panel| panel.report.workers_max).max().unwrap_or(0);
    for (number, panel) in picture.panels.iter().enumerate() {
        let (workers, below) = rest.split_vertically(canvas.pixels(WORKERS));
        let colour = (picture.panels.len() > 1).then(|| TELLING[number % TELLING.len()]);
        canvas.workers(&workers, panel, colour, f64::from(highest))?;
        rest = below;
    }
    canvas.footer(&rest)?;
    area.present()
}

/// Common parameters of all charts.
struct Canvas {
    scale: u32,
    /// Last second of the time axis.
    end: f64,
    times: Times,
}

impl Canvas {
    fn pixels(&self, layout: u32) -> i32 {
        i32::try_from(layout * self.scale).unwrap_or(i32::MAX)
    }

    fn font(&self, size: u32, style: FontStyle, colour: RGBColor) -> TextStyle<'static> {
        (FAMILY, f64::from(size * self.scale), style).into_font().color(&colour)
    }

    fn line(&self, colour: RGBColor, width: u32) -> ShapeStyle {
        colour.stroke_width(width * self.scale)
    }

    /// Draws a text with its upper edge at `y`. `hpos` says which of its ends is at `x`.
    fn write<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        text: &str,
        style: &TextStyle<'_>,
        (x, y): (u32, u32),
        hpos: HPos,
    ) -> Result<(), Failure<DB>> {
        let style = style.pos(Pos::new(hpos, VPos::Top));
        area.draw(&Text::new(text.to_owned(), (self.pixels(x), self.pixels(y)), style))
    }

    fn swatch<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        colour: RGBColor,
        (x, y): (u32, u32),
        height: u32,
    ) -> Result<(), Failure<DB>> {
        let corners = [(self.pixels(x), self.pixels(y)), (self.pixels(x + 14), self.pixels(y + height))];
        area.draw(&Rectangle::new(corners, colour.filled()))
    }

    /// Draws the title, and the legend of the workers' colours.
    fn header<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        picture: &Picture<'_>,
    ) -> Result<(), Failure<DB>> {
        self.write(area, picture.title, &self.font(19, FontStyle::Bold, INK), (20, 12), HPos::Left)?;
        let small = self.font(13, FontStyle::Normal, FAINT);
        if picture.panels.len() > 1 {
            let text = "depths have the colours of the squares below";
            self.write(area, text, &small, (WIDTH - RIGHT, 43), HPos::Right)?;
        }
        self.write(area, "workers:", &small, (20, 43), HPos::Left)?;
        for (x, colour, (y, height), text) in
            [(92, BUSY, (41, 13), "busy"), (160, READY, (41, 13), "ready, idle"), (270, WANTED, (46, 3), "wanted")]
        {
            self.swatch(area, colour, (x, y), height)?;
            self.write(area, text, &small, (x + 20, 43), HPos::Left)?;
        }
        Ok(())
    }

    /// Draws an empty chart with its heading: the title, and a note at the right end.
    fn chart<'a, DB: DrawingBackend>(
        &self,
        area: &'a DrawingArea<DB, Shift>,
        heading: &str,
        note: &str,
        highest: f64,
    ) -> Result<Chart<'a, DB>, Failure<DB>> {
        self.write(area, heading, &self.font(14, FontStyle::Bold, INK), (LEFT, 7), HPos::Left)?;
        let end = WIDTH - RIGHT;
        self.write(area, note, &self.font(13, FontStyle::Normal, FAINT), (end, 8), HPos::Right)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.pixels(HEADING))
            .margin_bottom(self.pixels(GAP))
            .margin_right(self.pixels(RIGHT))
            .margin_left(self.pixels(LEFT))
            .build_cartesian_2d(0.0..self.end, 0.0..highest * 1.06)?;
        let numbers = axis::counts(highest);
        let across = numbers.iter().map(|mark| [(0.0, *mark), (self.end, *mark)]);
        let upright = self.times.marks.iter().map(|mark| [(*mark, 0.0), (*mark, highest * 1.06)]);
        let grid = self.line(GRID, 1);
        chart.draw_series(across.chain(upright).map(|line| PathElement::new(line, grid)))?;
        let style = self.font(12, FontStyle::Normal, FAINT).pos(Pos::new(HPos::Right, VPos::Center));
        let base = area.get_base_pixel();
        for mark in numbers {
            let at = chart.backend_coord(&(0.0, mark));
            let place = (at.0 - base.0 - self.pixels(8), at.1 - base.1);
            area.draw(&Text::new(axis::number(mark), place, style.clone()))?;
        }
        Ok(chart)
    }

    /// Draws a value as steps over the whole time.
    fn steps(&self, buckets: &[Bucket], value: impl Fn(&Bucket) -> f64) -> Vec<(f64, f64)> {
        let ends = buckets.iter().skip(1).map(|bucket| bucket.from_seconds).chain([self.end]);
        buckets
            .iter()
            .zip(ends)
            .flat_map(|(bucket, end)| [(bucket.from_seconds, value(bucket)), (end, value(bucket))])
            .collect()
    }

    fn fill<DB: DrawingBackend>(
        chart: &mut Chart<'_, DB>,
        steps: Vec<(f64, f64)>,
        colour: RGBColor,
    ) -> Result<(), Failure<DB>> {
        chart.draw_series(AreaSeries::new(steps, 0.0, colour)).map(drop)
    }

    fn arrivals<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        picture: &Picture<'_>,
    ) -> Result<(), Failure<DB>> {
        let Some(panel) = picture.panels.first() else { return Ok(()) };
        let timeline = &panel.report.timeline;
        let width = timeline.get(1).map_or(self.end, |bucket| bucket.from_seconds);
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 jobs")]
        let per_second = |bucket: &Bucket| bucket.arrivals as f64 / width;
        let highest = timeline.iter().map(per_second).fold(0.0, f64::max);
        let (factor, unit) = match highest {
            rate if rate >= 2.0 => (1.0, "second"),
            rate if rate * 60.0 >= 2.0 => (60.0, "minute"),
            _ => (3_600.0, "hour"),
        };
        let heading = format!("Arrivals (jobs per {unit})");
        let mut chart = self.chart(area, &heading, "", (highest * factor).max(1.0))?;
        Self::fill(&mut chart, self.steps(timeline, |bucket| per_second(bucket) * factor), COMING)
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 jobs")]
    fn backlog<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        picture: &Picture<'_>,
    ) -> Result<(), Failure<DB>> {
        let highest = picture.panels.iter().map(|panel| panel.report.depth_max).max().unwrap_or(0).max(1) as f64;
        let note = if picture.panels.len() > 1 { "peaks" } else { "line: peaks, area: mean" };
        let mut chart = self.chart(area, "Depth (unfinished jobs)", note, highest)?;
        if let [only] = picture.panels {
            Self::fill(&mut chart, self.steps(&only.report.timeline, |bucket| bucket.depth), AVERAGE)?;
        }
        for (number, panel) in picture.panels.iter().enumerate() {
            let line = self.line(TELLING[number % TELLING.len()], 1);
            let steps = self.steps(&panel.report.timeline, |bucket| bucket.depth_max as f64);
            chart.draw_series(LineSeries::new(steps, line))?;
        }
        Ok(())
    }

    fn workers<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        panel: &Panel<'_>,
        colour: Option<RGBColor>,
        highest: f64,
    ) -> Result<(), Failure<DB>> {
        if let Some(colour) = colour {
            self.swatch(area, colour, (LEFT - 24, 6), 13)?;
        }
        let mut chart = self.chart(area, &format!("Workers: {}", panel.label), &panel.note, highest.max(1.0))?;
        let timeline = &panel.report.timeline;
        Self::fill(&mut chart, self.steps(timeline, |bucket| bucket.ready), READY)?;
        Self::fill(&mut chart, self.steps(timeline, |bucket| bucket.busy), BUSY)?;
        let wanted = self.steps(timeline, |bucket| bucket.desired);
        chart.draw_series(LineSeries::new(wanted, self.line(WANTED, 1))).map(drop)
    }

    /// Draws the times below the last chart.
    fn footer<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>) -> Result<(), Failure<DB>> {
        let style = self.font(12, FontStyle::Normal, FAINT);
        let across = f64::from(WIDTH - LEFT - RIGHT);
        for mark in &self.times.marks {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "marks are within the axis")]
            let x = LEFT + (mark / self.end * across).round() as u32;
            self.write(area, &self.times.text(*mark), &style, (x, 0), HPos::Center)?;
        }
        let what = format!("time since the beginning ({})", self.times.unit());
        self.write(area, &what, &style, (LEFT + (WIDTH - LEFT - RIGHT) / 2, 22), HPos::Center)
    }
}
