//! Rows of text in columns, as wide as they must be.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

/// Writes rows in columns; the last column is as long as it is.
pub(super) fn write(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            match widths.get_mut(index) {
                Some(width) => *width = (*width).max(cell.width()),
                None => widths.push(cell.width()),
            }
        }
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.width().min(*width) + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
