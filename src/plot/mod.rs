//! Pictures of simulations: arrivals, backlog and workers over time, one below the other on the same axis. As SVG and
//! as PNG.
//!
//! Owns what a picture looks like. Must not read or write files, and needs nothing of the machine it runs on: text is
//! drawn with the font that is compiled in.

mod axis;
mod chart;
mod fonts;

use std::path::Path;

use plotters::{
    backend::{BitMapBackend, SVGBackend},
    drawing::IntoDrawingArea,
};

use crate::simulation::Report;

/// Pixels across, before scaling.
const WIDTH: u32 = 1_200;
/// Pixels of a PNG for each one of the layout, so that it is sharp on dense screens.
const PNG_SCALE: u32 = 2;

/// What a picture is encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable, text stays text.
    Svg,
    /// Pixels.
    Png,
}

/// A picture can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// It is not clear in which format.
    #[error("can't tell the picture's format from `{0}`; let the name end with .svg or .png")]
    Format(String),
    /// Drawing failed.
    #[error("can't draw the picture: {0}")]
    Draw(String),
    /// Encoding failed.
    #[error("can't encode the picture: {0}")]
    Encode(#[from] png::EncodingError),
}

impl Format {
    /// By the name of the file.
    ///
    /// # Errors
    /// If that does not tell.
    pub fn of(file: &Path) -> Result<Self, PlotError> {
        match file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(PlotError::Format(file.display().to_string())),
        }
    }
}

/// One simulation in a picture.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// What was simulated.
    pub label: &'a str,
    /// What was found, in a few words.
    pub note: String,
    /// All that was found.
    pub report: &'a Report,
}

/// Simulations of the same jobs.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// What they are about.
    pub title: &'a str,
    /// The simulations; at least one.
    pub panels: &'a [Panel<'a>],
}

impl Picture<'_> {
    /// Draws it; answers the file's content.
    ///
    /// # Errors
    /// If it can't be drawn or encoded.
    pub fn draw(&self, format: Format) -> Result<Vec<u8>, PlotError> {
        fonts::register();
        let height = chart::height(self.panels.len());
        match format {
            Format::Svg => {
                let mut text = String::new();
                let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
                chart::draw(&area, self, 1).map_err(|error| PlotError::Draw(error.to_string()))?;
                drop(area);
                Ok(text.into_bytes())
            }
            Format::Png => {
                let (width, height) = (WIDTH * PNG_SCALE, height * PNG_SCALE);
                let mut pixels = vec![0; width as usize * height as usize * 3];
                let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
                chart::draw(&area, self, PNG_SCALE).map_err(|error| PlotError::Draw(error.to_string()))?;
                drop(area);
                encode(&pixels, width, height)
            }
        }
    }
}

fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, PlotError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
