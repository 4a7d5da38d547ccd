//! Speed against length, with the limit of the machine, as an SVG.

mod axis;
mod panel;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use axis::Scale;
pub use panel::{Panel, Point};

/// Size of a panel, and height of the title, in pixels.
const PANEL: (u32, u32) = (480, 376);
const TITLE_HEIGHT: u32 = 64;

/// Around the axes: on the left the labels and the unit, above them the name of the panel and what its lines are.
const LEFT: u32 = 76;
const RIGHT: u32 = 18;
const ABOVE: u32 = 92;
const BELOW: u32 = 50;

const FONT: &str = "sans-serif";
const MEASURED: RGBColor = RGBColor(31, 107, 178);
const LIMIT: RGBColor = RGBColor(196, 78, 26);
const TEXT: RGBColor = RGBColor(36, 41, 47);
const GRAY: RGBColor = RGBColor(96, 104, 112);
const GRID: RGBColor = RGBColor(225, 228, 232);

/// Most characters of a line of the title; the rest of a long name is left out.
const TITLE_LENGTH: usize = 90;

pub struct Picture {
    pub title: String,
    pub subtitle: String,
    pub panels: Vec<Panel>,
}

impl Picture {
    /// The file. Panels without points are left out.
    ///
    /// The same numbers give the same bytes.
    pub fn svg(&self) -> Result<String> {
        let panels: Vec<_> = self.panels.iter().filter(|panel| !panel.points.is_empty()).collect();
        let width = PANEL.0 * panels.len() as u32;
        let mut svg = String::new();
        let area =
            SVGBackend::with_string(&mut svg, (width, TITLE_HEIGHT + PANEL.1)).into_drawing_area();
        let drawn = (|| -> Drawn<'_> {
            area.fill(&WHITE)?;
            let characters = TITLE_LENGTH * panels.len() / 2;
            text(&area, &shorten(&self.title, characters), (20, 14), 22, TEXT, true)?;
            text(&area, &shorten(&self.subtitle, characters), (20, 42), 16, GRAY, false)?;
            let (_, below) = area.split_vertically(TITLE_HEIGHT);
            for (area, panel) in below.split_evenly((1, panels.len())).iter().zip(panels) {
                draw(panel, area)?;
            }
            area.present()
        })();
        drawn.map_err(|error| anyhow!("the picture cannot be drawn: {error}"))?;
        drop(area);
        Ok(svg)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw<'a>(panel: &Panel, area: &Area<'a>) -> Drawn<'a> {
    let left = LEFT as i32;
    text(area, &panel.name, (left, 4), 19, TEXT, true)?;
    let key = |y: i32, name: &str| text(area, name, (left + 34, y), 15, GRAY, false);
    key(27, "measured: median, slowest and fastest round")?;
    area.draw(&PathElement::new([(left, 33), (left + 26, 33)], MEASURED.stroke_width(2)))?;
    area.draw(&Circle::new((left + 13, 33), 3, MEASURED.filled()))?;
    if !panel.limit.is_empty() {
        key(46, &panel.limit_name)?;
        for x in [left, left + 10, left + 20] {
            area.draw(&PathElement::new([(x, 52), (x + 6, 52)], LIMIT.stroke_width(2)))?;
        }
    }

    // Beside the axis, it would be placed without knowing how wide the labels are.
    text(area, "tokens/s", (left - 60, 68), 16, TEXT, false)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(ABOVE)
        .margin_right(RIGHT)
        .x_label_area_size(BELOW)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(panel.axis.clone(), 0.0..panel.top())?;
    let labels = (FONT, 15).into_font().color(&GRAY);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRAY)
        .x_labels(panel.axis.labels())
        .y_labels(6)
        .y_label_formatter(&|speed| speed.to_string())
        .label_style(labels)
        .axis_desc_style((FONT, 16).into_font().color(&TEXT))
        .x_desc(&panel.unit)
        .draw()?;
    let limit = panel.limit.iter().copied();
    chart.draw_series(DashedLineSeries::new(limit, 6, 4, LIMIT.stroke_width(2)))?;
    let line = panel.points.iter().map(|point| (point.tokens, point.median));
    chart.draw_series(LineSeries::new(line, MEASURED.stroke_width(2)))?;
    chart.draw_series(panel.points.iter().map(|point| {
        let spread = [(point.tokens, point.least), (point.tokens, point.most)];
        PathElement::new(spread, MEASURED.stroke_width(1))
    }))?;
    let dots = panel.points.iter().map(|point| (point.tokens, point.median));
    chart.draw_series(dots.map(|dot| Circle::new(dot, 3, MEASURED.filled())))?;
    Ok(())
}

/// Text whose upper left corner is at `corner`.
fn text<'a>(
    area: &Area<'a>,
    text: &str,
    corner: (i32, i32),
    size: u32,
    color: RGBColor,
    bold: bool,
) -> Drawn<'a> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = TextStyle::from((FONT, size, style)).color(&color);
    let style = style.pos(Pos::new(HPos::Left, VPos::Top));
    area.draw(&Text::new(text, corner, style))
}

/// The first `most` characters of a text that is longer.
fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(prompts: &[usize], depths: &[usize]) -> Picture {
        let points = |lengths: &[usize], of: &dyn Fn(usize) -> f64| -> Vec<_> {
            let point = |&tokens: &usize| {
                let median = of(tokens);
                Point { tokens, median, least: 0.95 * median, most: 1.02 * median }
            };
            lengths.iter().map(point).collect()
        };
        let roof = |tokens: usize| 76.5f64.min(9.8 * tokens as f64);
        let fall = |depth: usize| 1.0 / (0.1 + depth as f64 * 4e-6);
        let prompts = Panel::new(
            "Reading a prompt",
            "tokens of the prompt",
            Scale::Logarithmic,
            points(prompts, &|n| 0.7 * roof(n)),
            "limit: reads 33.1 GB/s, 472 G multiply-adds/s",
            |n| Some(roof(n)),
        );
        let decode = Panel::new(
            "Generating",
            "tokens of context",
            Scale::Linear,
            points(depths, &|n| 0.9 * fall(n)),
            "limit: reads 33.1 GB/s",
            |n| Some(fall(n)),
        );
        let (title, subtitle) =
            ("模型 <INT4> & \"co\"".to_owned(), "Processor, 2 threads".to_owned());
        Picture { title, subtitle, panels: vec![prompts, decode] }
    }

    /// Checks that tags are closed in order and text is escaped; returns the texts.
    fn texts(svg: &str) -> Vec<String> {
        let (mut open, mut texts) = (Vec::new(), Vec::new());
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag ends");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
            let name_end = |entity: &str| entity.split_once(';').map(|(name, _)| name.to_owned());
            assert!(
                text.split('&').skip(1).all(|entity| {
                    name_end(entity).is_some_and(|name| name.chars().all(char::is_alphanumeric))
                }),
                "{text}"
            );
            texts.extend((!text.trim().is_empty()).then(|| text.trim().to_owned()));
        }
        assert!(open.is_empty(), "{open:?}");
        texts
    }

    #[test]
    fn both_panels_are_drawn() {
        let picture = picture(&[16, 32, 64, 128, 256, 512], &[32, 128, 512, 1024, 2000]);
        let svg = picture.svg().unwrap();
        assert_eq!(svg, picture.svg().unwrap());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let texts = texts(&svg);
        for expected in [
            "模型 &lt;INT4&gt; &amp; &quot;co&quot;",
            "Processor, 2 threads",
            "Reading a prompt",
            "tokens of the prompt",
            "Generating",
            "tokens of context",
            "limit: reads 33.1 GB/s",
            "512",
            "2000",
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
        assert_eq!(texts.iter().filter(|text| *text == "tokens/s").count(), 2);
        // A dot for each measurement, and one for each legend.
        assert_eq!(svg.matches("<circle").count(), 6 + 5 + 2);
    }

    #[test]
    fn single_points_and_missing_panels_are_drawn() {
        for (prompts, depths) in [(&[100][..], &[0][..]), (&[1], &[]), (&[], &[7]), (&[9, 10], &[])]
        {
            let svg = picture(prompts, depths).svg().unwrap();
            let panels = [prompts, depths].iter().filter(|lengths| !lengths.is_empty()).count();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(texts(&svg).iter().filter(|text| *text == "tokens/s").count(), panels);
            assert_eq!(svg.matches("<circle").count(), prompts.len() + depths.len() + panels);
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(shorten("模型", 2), "模型");
        assert_eq!(shorten("模型b", 2), "模型…");
    }
}
