//! Rates as a picture: a bar for each query and parallelism, as SVG that needs nothing else and follows a light or a dark page.
//!
//! ```text
//!   q5   ████████████████████├──┤     24.1      a bar: the median; a whisker: from the slowest to the fastest run
//!        ██████████████████████████├─┤ 31.0     one colour per parallelism
//! ```

use std::fmt::{self, Write};

/// A bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Bars of one query stand together when they come one after another.
    pub query: String,
    /// Tasks per operator.
    pub parallelism: usize,
    /// The slowest run, the median, the fastest one, in events per second.
    pub rates: [f64; 3],
}

const LEFT: f64 = 56.0;
const WIDTH: f64 = 720.0;
/// What is left for the figure behind the longest bar.
const RIGHT: f64 = 64.0;
const BAR: f64 = 13.0;
const BETWEEN: f64 = 9.0;
const TOP: f64 = 58.0;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px } .figure { fill: #57606a }
  .c0 { fill: #1f6feb } .c1 { fill: #2da44e } .c2 { fill: #bf8700 } .c3 { fill: #a475f9 } path { stroke: #57606a; fill: none }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .figure { fill: #9198a1 } path { stroke: #9198a1 } .page { fill: #0d1117 }
  }
";

/// The bars below a title.
pub fn svg(title: &str, bars: &[Bar]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, title, bars);
    out
}

fn draw(out: &mut String, title: &str, bars: &[Bar]) -> fmt::Result {
    let mut tasks: Vec<usize> = bars.iter().map(|bar| bar.parallelism).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let colour = |parallelism: usize| tasks.iter().position(|other| *other == parallelism).unwrap_or_default() % 4;
    let most = bars.iter().map(|bar| bar.rates[2]).fold(f64::MIN_POSITIVE, f64::max);
    let length = |rate: f64| rate / most * (WIDTH - LEFT - RIGHT);
    let groups: Vec<&[Bar]> = bars.chunk_by(|a, b| a.query == b.query).collect();
    let height = TOP + bars.len() as f64 * BAR + groups.len() as f64 * BETWEEN;
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    )?;
    writeln!(out, "<title>{0}</title>\n<style>{STYLE}</style>", escaped(title))?;
    writeln!(out, r#"<rect class="page" width="{WIDTH}" height="{height}"/>"#)?;
    writeln!(out, r#"<text class="title" x="8" y="20">{}</text>"#, escaped(title))?;
    let mut x = LEFT;
    for parallelism in &tasks {
        writeln!(out, r#"<rect class="c{}" x="{x}" y="32" width="10" height="10"/>"#, colour(*parallelism))?;
        writeln!(out, r#"<text x="{}" y="41">parallelism {parallelism}</text>"#, x + 15.0)?;
        x += 110.0;
    }
    let mut y = TOP;
    for group in groups {
        let middle = y + group.len() as f64 * BAR / 2.0 + 4.0;
        writeln!(
            out,
            r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            escaped(&group[0].query)
        )?;
        for bar in group {
            let [least, median, greatest] = bar.rates.map(length);
            let (class, thick, line) = (colour(bar.parallelism), BAR - 2.0, y + BAR / 2.0 - 1.0);
            writeln!(out, r#"<rect class="c{class}" x="{LEFT}" y="{y}" width="{median:.1}" height="{thick}"/>"#)?;
            let (from, to) = (LEFT + least, LEFT + greatest);
            writeln!(out, r#"<path d="M{from:.1} {line}H{to:.1}M{from:.1} {0}v6M{to:.1} {0}v6"/>"#, line - 3.0)?;
            let (x, figure) = (to + 6.0, bar.rates[1] / 1e6);
            writeln!(out, r#"<text class="figure" x="{x:.1}" y="{}">{figure:.2}</text>"#, line + 4.5)?;
            y += BAR;
        }
        y += BETWEEN;
    }
    writeln!(out, "</svg>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tag is closed by its like; quotes of attributes too; the text has no markup. Returns the names of elements.
    fn elements(svg: &str) -> Vec<&str> {
        let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), svg);
        while let Some(begin) = rest.find('<') {
            let text = &rest[..begin];
            let is_named = |part: &str| ["amp;", "lt;", "gt;"].iter().any(|name| part.starts_with(name));
            assert!(text.split('&').skip(1).all(is_named) && !text.contains('>'), "{text:?}");
            let end = begin + rest[begin..].find('>').expect("a tag ends");
            let tag = &rest[begin + 1..end];
            assert!(tag.matches('"').count().is_multiple_of(2) && !tag.contains('<'), "{tag:?}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None => {
                    let name = tag.split([' ', '/']).next().unwrap();
                    all.push(name);
                    if !tag.ends_with('/') {
                        open.push(name);
                    }
                }
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
        all
    }

    #[test]
    fn a_picture_is_well_formed_and_has_all_bars() {
        let bar = |query: &str, parallelism, median: f64| Bar {
            query: query.into(),
            parallelism,
            rates: [median * 0.9, median, median * 1.1],
        };
        let bars = [bar("q0", 1, 80e6), bar("q0", 2, 120e6), bar("q<5>", 1, 7e6), bar("q<5>", 2, 0.25e6)];
        let picture = svg("events & rates", &bars);
        let all = elements(&picture);
        let count = |name: &str| all.iter().filter(|element| **element == name).count();
        // The page, the legend, the bars; a whisker each.
        assert_eq!((count("svg"), count("rect"), count("path")), (1, 1 + 2 + 4, 4));
        for text in
            ["events &amp; rates", ">q&lt;5&gt;</text>", ">80.00</text>", ">0.25</text>", "dark", "parallelism 2"]
        {
            assert!(picture.contains(text), "{text} in {picture}");
        }
        // The fastest run ends where the figures begin, and no bar is longer.
        assert!(picture.contains("H656.0M"), "{picture}");
        elements(&svg("nothing", &[]));
    }
}
