//! Bar charts of comparisons, as SVG.

use std::fmt::Write as _;

use crate::comparison::{Comparison, Target};

const WIDTH: usize = 840;
const HEADER_HEIGHT: usize = 34;
const ROW_HEIGHT: usize = 34;
const BAR_LEFT: f64 = 450.0;
const LONGEST_BAR: f64 = 310.0;

/// Draws two bars for each comparison with a target for its ratio.
pub fn bars(title: &str, comparisons: &[Comparison]) -> String {
    let shown: Vec<&Comparison> = comparisons
        .iter()
        .filter(|comparison| {
            matches!(
                comparison.target,
                Some(Target::RatioAtMost(_) | Target::RatioAtLeast(_))
            )
        })
        .collect();
    let height = HEADER_HEIGHT + shown.len() * ROW_HEIGHT + 6;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\">{title}</text>\n"
    );
    for (index, comparison) in shown.into_iter().enumerate() {
        let top = HEADER_HEIGHT + index * ROW_HEIGHT;
        let middle = top + 14;
        let second = LONGEST_BAR / comparison.ratio().max(1.0);
        let first = second * comparison.ratio();
        writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle}\" text-anchor=\"end\">{}: {}</text>\n\
             <rect x=\"{BAR_LEFT}\" y=\"{top}\" width=\"{first:.0}\" height=\"12\" \
             fill=\"#2a6fdb\"/>\n\
             <rect x=\"{BAR_LEFT}\" y=\"{middle}\" width=\"{second:.0}\" height=\"8\" \
             fill=\"#bbb\"/>\n\
             <text x=\"{:.0}\" y=\"{middle}\">{:.2}</text>",
            BAR_LEFT - 10.0,
            comparison.workload,
            comparison.metric,
            BAR_LEFT + 6.0 + second.max(first),
            comparison.ratio(),
        )
        .expect("writing to a string cannot fail");
    }
    svg.push_str("</svg>\n");
    svg
}
