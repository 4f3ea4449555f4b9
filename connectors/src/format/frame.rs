//! Where a record ends: line ends, the limit on a record's length, and quotes that may hide a line end.
//!
//! Framers look at each byte once, also for input made to hurt: a search that needs more bytes resumes where it
//! stopped, and a quote that never closes is searched to the limit once, not once for every line behind it.

use memchr::{memchr, memchr_iter, memchr2};

/// What [`Decoder::frame`](super::Decoder::frame) found at the beginning of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A record.
    Record(Span),
    /// A line without a record, to be passed over.
    Blank(Span),
    /// A line that cannot be a record, and why.
    Bad(Span, &'static str),
    /// A line longer than the limit. Its end may not be in sight: go on behind the next line feed.
    TooLong,
    /// The record does not end within these bytes. If there are no more of them, the input has ended.
    More,
}

/// Where a record lies in the bytes, which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The end of the record, without its line end.
    pub end: usize,
    /// The beginning of the next record.
    pub next: usize,
    /// The line feeds passed.
    pub lines: u64,
}

impl Span {
    /// The line that ends with the line feed at `newline`.
    fn line(bytes: &[u8], newline: usize) -> Self {
        Self { end: without_return(bytes, newline), next: newline + 1, lines: 1 }
    }

    /// All bytes: the last record, without a final line feed.
    fn rest(bytes: &[u8]) -> Self {
        Self { end: without_return(bytes, bytes.len()), next: bytes.len(), lines: 0 }
    }
}

/// The end of the line whose line feed is at `end`, where a carriage return before it belongs to the line end.
fn without_return(bytes: &[u8], end: usize) -> usize {
    if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end }
}

/// One record a line, whatever it holds: JSON lines.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    /// The bytes that hold no line feed.
    searched: usize,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, searched: 0 }
    }

    pub(super) fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        let from = std::mem::take(&mut self.searched).min(bytes.len());
        let span = match memchr(b'\n', &bytes[from..]) {
            Some(at) => Span::line(bytes, from + at),
            None if bytes.len() > self.limit.saturating_add(1) => return Frame::TooLong,
            None if last && !bytes.is_empty() => Span::rest(bytes),
            None => {
                self.searched = bytes.len();
                return Frame::More;
            }
        };
        if span.end > self.limit {
            Frame::TooLong
        } else if bytes[..span.end].iter().all(|byte| byte.is_ascii_whitespace()) {
            Frame::Blank(span)
        } else {
            Frame::Record(span)
        }
    }
}

/// Where in a CSV record a search stands. The transitions are those of `csv-core`, which splits the record later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the first byte of a field: only here does a quote open.
    FieldStart,
    /// In a field without quotes, or behind the closing quote.
    Plain,
    /// Between quotes: line feeds belong to the field.
    Quoted,
    /// Behind a quote between quotes: a second one would be a quote of the text, anything else closes.
    QuoteSeen,
}

/// A search that stands at a byte.
#[derive(Clone, Copy, Debug)]
struct Search {
    at: usize,
    state: State,
    /// The first line feed between quotes.
    first_line: Option<usize>,
}

const START: Search = Search { at: 0, state: State::FieldStart, first_line: None };

/// One record a line, except that quotes may hold line feeds: CSV.
///
/// A record whose quote does not close before the limit or the end of the file rejects its first line only. The search
/// has then passed over many lines that are framed next. Each of them may open a quote as well and so begin another
/// long search; but two searches that are both between quotes at the same line feed go the same way from there. The
/// failed search stood between quotes at *every* line feed it passed, so the later one jumps to its end.
#[derive(Debug)]
pub(super) struct QuotedLines {
    delimiter: u8,
    limit: usize,
    search: Search,
    /// The end of a search that failed: where it stood, and in which state.
    failed: Option<(usize, State)>,
}

const UNCLOSED: &str = "a quote opens and does not close: neither in this line nor before the end of the file or the \
                        limit on a record's length";

impl QuotedLines {
    pub(super) fn new(delimiter: u8, limit: usize) -> Self {
        Self { delimiter, limit, search: START, failed: None }
    }

    pub(super) fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        // A record of `limit` bytes with CR LF behind it lies within the window.
        let window = &bytes[..bytes.len().min(self.limit.saturating_add(2))];
        let mut search = self.search;
        let end = self.advance(window, &mut search);
        let frame = match end {
            Some(newline) if without_return(window, newline) <= self.limit => record(window, newline, &search),
            Some(newline) => {
                search.at = newline;
                too_long(window, &search)
            }
            None if bytes.len() > self.limit.saturating_add(1) => too_long(window, &search),
            None if last && !bytes.is_empty() => self.last(bytes, &search),
            None => {
                self.search = search;
                return Frame::More;
            }
        };
        self.forget(&frame, search);
        frame
    }

    /// Moves on to the line feed that ends the record, if the bytes hold it.
    fn advance(&self, bytes: &[u8], search: &mut Search) -> Option<usize> {
        while search.at < bytes.len() {
            let rest = &bytes[search.at..];
            match search.state {
                State::Plain => match memchr2(self.delimiter, b'\n', rest) {
                    Some(at) => {
                        search.at += at;
                        search.state = State::FieldStart;
                        if bytes[search.at] == b'\n' {
                            return Some(search.at);
                        }
                        search.at += 1;
                    }
                    None => search.at = bytes.len(),
                },
                State::Quoted => match memchr2(b'"', b'\n', rest) {
                    Some(at) if rest[at] == b'"' => {
                        search.at += at + 1;
                        search.state = State::QuoteSeen;
                    }
                    Some(at) => self.pass_line(search, search.at + at, bytes.len()),
                    None => search.at = bytes.len(),
                },
                State::FieldStart | State::QuoteSeen => {
                    match rest[0] {
                        b'\n' => return Some(search.at),
                        b'"' => search.state = State::Quoted,
                        byte if byte == self.delimiter => search.state = State::FieldStart,
                        _ => search.state = State::Plain,
                    }
                    search.at += 1;
                }
            }
        }
        None
    }

    /// Passes a line feed between quotes; jumps where a failed search has been.
    fn pass_line(&self, search: &mut Search, newline: usize, len: usize) {
        search.first_line.get_or_insert(newline);
        search.at = newline + 1;
        if let Some((end, state)) = self.failed
            && newline < end
            && end <= len
        {
            (search.at, search.state) = (end, state);
        }
    }

    fn last(&self, bytes: &[u8], search: &Search) -> Frame {
        if search.state == State::Quoted {
            return match search.first_line {
                Some(newline) => Frame::Bad(Span::line(bytes, newline), UNCLOSED),
                None => Frame::Bad(Span::rest(bytes), UNCLOSED),
            };
        }
        let span = Span::rest(bytes);
        if span.end > self.limit {
            return too_long(bytes, search);
        }
        let lines = count_lines(&bytes[..span.end], search);
        if span.end == 0 { Frame::Blank(span) } else { Frame::Record(Span { lines, ..span }) }
    }

    /// Begins the next search, and remembers where this one failed, counted from the bytes of the next call.
    fn forget(&mut self, frame: &Frame, search: Search) {
        self.search = START;
        self.failed = match *frame {
            Frame::Bad(span, _) if search.at > span.next => Some((search.at - span.next, search.state)),
            Frame::Record(span) | Frame::Blank(span) | Frame::Bad(span, _) => match self.failed {
                Some((end, state)) if end > span.next => Some((end - span.next, state)),
                _ => None,
            },
            Frame::TooLong | Frame::More => None,
        };
    }
}

fn record(bytes: &[u8], newline: usize, search: &Search) -> Frame {
    let span = Span::line(bytes, newline);
    match span.end {
        0 => Frame::Blank(span),
        _ => Frame::Record(Span { lines: span.lines + count_lines(&bytes[..newline], search), ..span }),
    }
}

/// Line feeds within a record; counted only if there is one.
fn count_lines(record: &[u8], search: &Search) -> u64 {
    match search.first_line {
        Some(_) => memchr_iter(b'\n', record).count() as u64,
        None => 0,
    }
}

/// The limit is reached. If that is the fault of a quote over several lines, only the first of them is bad.
fn too_long(bytes: &[u8], search: &Search) -> Frame {
    match search.first_line {
        Some(newline) => Frame::Bad(Span::line(bytes, newline), UNCLOSED),
        None => Frame::TooLong,
    }
}
