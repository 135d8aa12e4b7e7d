//! Font of all pictures: DejaVu Sans, reduced to the used glyphs (`fonts/LICENSE.txt`).

use std::sync::Once;

use plotters::style::{FontStyle, register_font};

/// Name of the font, and fallbacks for viewers of an SVG.
pub(super) const FAMILY: &str = "sans-serif";

const NORMAL: &[u8] = include_bytes!("fonts/DejaVuSans-subset.ttf");
const BOLD: &[u8] = include_bytes!("fonts/DejaVuSans-Bold-subset.ttf");

/// Registers the font, once for the whole process.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, NORMAL), (FontStyle::Bold, BOLD)] {
            assert!(register_font(FAMILY, style, bytes).is_ok(), "the font that is compiled in is one");
        }
    });
}
