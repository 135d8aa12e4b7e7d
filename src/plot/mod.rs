//! Pictures of simulations: arrivals, backlog and workers over time, one below the other on the same axis. As SVG and
//! as PNG.
//!
//! Owns the design of a picture. Must not read or write files, and must not depend on the machine: text uses a
//! compiled-in font.

mod axis;
mod chart;
mod fonts;

use std::path::Path;

use plotters::{
    backend::{BitMapBackend, SVGBackend},
    drawing::IntoDrawingArea,
};

use crate::simulation::Report;

/// Width in pixels, before scaling.
const WIDTH: u32 = 1_200;
/// Pixels of a PNG for each pixel of the layout, for sharp pictures on dense screens.
const PNG_SCALE: u32 = 2;

/// File format of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Vector graphics; text stays text.
    Svg,
    /// Pixel graphics.
    Png,
}

/// Error of making a picture.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The format is unknown.
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
    /// Returns the format by the extension of a file.
    ///
    /// # Errors
    /// If the extension is unknown.
    pub fn of(file: &Path) -> Result<Self, PlotError> {
        match file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(PlotError::Format(file.display().to_string())),
        }
    }
}

/// Simulation in a picture.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// Name of the configuration.
    pub label: &'a str,
    /// Summary of the result.
    pub note: String,
    /// Full result.
    pub report: &'a Report,
}

/// Simulations of the same jobs.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// Title.
    pub title: &'a str,
    /// Simulations; at least one.
    pub panels: &'a [Panel<'a>],
}

impl Picture<'_> {
    /// Draws the picture and returns the file's content.
    ///
    /// # Errors
    /// If drawing or encoding fails.
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
