// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Separates code from comments, and drops the contents of literals.

use super::Line;

/// The kind of text that the next character belongs to.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    /// A block comment, with the depth of nesting.
    BlockComment(usize),
    /// A string that ends with a quote and this many hashes, or `None` if a backslash escapes.
    Text(Option<usize>),
}

/// Returns the lines of a text.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut state = State::Code;
    text.lines()
        .map(|text| {
            let mut line = Line::default();
            let mut rest = text;
            while !rest.is_empty() {
                let (next, length) = step(state, rest, &mut line);
                (state, rest) = (next, &rest[length..]);
            }
            if state == State::LineComment {
                state = State::Code;
            }
            line
        })
        .collect()
}

/// Reads one token from the rest of a line: returns the state after it, and its length.
fn step(state: State, rest: &str, line: &mut Line) -> (State, usize) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match state {
        State::Code => code(rest, first, line),
        State::LineComment => {
            line.comment.push_str(rest);
            (state, rest.len())
        }
        State::BlockComment(depth) => {
            let (next, length) = if rest.starts_with("/*") {
                (State::BlockComment(depth + 1), 2)
            } else if rest.starts_with("*/") {
                (
                    if depth == 1 {
                        State::Code
                    } else {
                        State::BlockComment(depth - 1)
                    },
                    2,
                )
            } else {
                (state, first)
            };
            line.comment.push_str(&rest[..length]);
            (next, length)
        }
        State::Text(hashes) => text(hashes, rest, first, line),
    }
}

fn code(rest: &str, first: usize, line: &mut Line) -> (State, usize) {
    if rest.starts_with("//") {
        return (State::LineComment, 0);
    }
    if rest.starts_with("/*") {
        line.comment.push_str("/*");
        return (State::BlockComment(1), 2);
    }
    if let Some(hashes) = raw_string(rest, &line.code) {
        line.code.push('"');
        return (State::Text(Some(hashes)), hashes + 2);
    }
    if rest.starts_with('"') {
        line.code.push('"');
        return (State::Text(None), 1);
    }
    if let Some(length) = character(rest) {
        line.code.push_str("''");
        return (State::Code, length);
    }
    line.code.push_str(&rest[..first]);
    (State::Code, first)
}

fn text(hashes: Option<usize>, rest: &str, first: usize, line: &mut Line) -> (State, usize) {
    let end = match hashes {
        None if rest.starts_with('\\') => {
            let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
            return (State::Text(hashes), 1 + escaped);
        }
        None => rest.starts_with('"').then_some(1),
        Some(hashes) => {
            let closes = rest.starts_with('"')
                && rest[1..].bytes().take_while(|&b| b == b'#').count() >= hashes;
            closes.then_some(1 + hashes)
        }
    };
    match end {
        Some(length) => {
            line.code.push('"');
            (State::Code, length)
        }
        None => (State::Text(hashes), first),
    }
}

/// Returns the number of hashes if a raw string begins here.
fn raw_string(rest: &str, before: &str) -> Option<usize> {
    let in_word =
        before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_');
    let after = rest.strip_prefix('r').filter(|_| !in_word)?;
    let hashes = after.bytes().take_while(|&b| b == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Returns the length of a character literal if one begins here. A lifetime is not one.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let mut chars = inner.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        return inner.get(2..)?.find('\'').map(|at| at + 4);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 2)
}

#[cfg(test)]
mod tests {
    use super::lines;

    fn code(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_are_not_code() {
        let parts = lines("a(); // b\n/* c /* d */\ne */ f();");
        assert_eq!(parts[0].code, "a(); ");
        assert_eq!(parts[0].comment, "// b");
        assert_eq!(parts[1].code, "");
        assert_eq!(parts[2].code, " f();");
    }

    #[test]
    fn literals_are_emptied() {
        assert_eq!(
            code(r#"f("unsafe // \" x", 'y', '\'', b"z");"#),
            [r#"f("", '', '', b"");"#]
        );
    }

    #[test]
    fn raw_strings_end_at_their_hashes() {
        assert_eq!(code("f(r#\"a \" b\n// c\"#); g();"), ["f(\"", "\"); g();"]);
        assert_eq!(code("f(br\"\\\"); g();"), ["f(b\"\"); g();"]);
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), ["fn f<'a>(x: &'a str) {}"]);
    }

    #[test]
    fn a_name_that_ends_in_r_does_not_begin_a_string() {
        assert_eq!(code("for\"x\""), ["for\"\""]);
    }
}
