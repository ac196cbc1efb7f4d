//! Server-sent events, as far as chat completions use them: the `data` of each event.

/// Takes bytes as they arrive and gives the data of complete events. Names, ids and comments are skipped.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The line that has begun: bytes, since a character may be split over chunks.
    line: Vec<u8>,
    /// The lines of data of the event that has begun.
    data: Option<String>,
    /// The last line ended with a carriage return, so a line feed belongs to it.
    after_return: bool,
    /// Some line was seen, so a byte order mark can't follow.
    begun: bool,
}

impl Events {
    /// Takes the next bytes, and passes on the data of each event that they complete.
    ///
    /// # Errors
    /// That of `take`, which ends the reading.
    pub(crate) fn push<E>(&mut self, bytes: &[u8], mut take: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut rest = bytes;
        if std::mem::take(&mut self.after_return) {
            match rest.split_first() {
                Some((b'\n', others)) => rest = others,
                Some(_) => {}
                None => self.after_return = true,
            }
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&rest[..end]);
            rest = match &rest[end..] {
                [b'\r', b'\n', others @ ..] => others,
                [b'\r'] => {
                    self.after_return = true;
                    &[]
                }
                [_, others @ ..] => others,
                [] => &[],
            };
            if let Some(data) = self.end_line() {
                take(&data)?;
            }
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The data of an event whose end was never sent. It may be cut off.
    pub(crate) fn finish(&mut self) -> Option<String> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.data.take()
    }

    /// Ends the line: an empty one ends the event.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = match line.strip_prefix('\u{feff}') {
            Some(marked) if !self.begun => marked,
            _ => line.as_ref(),
        };
        self.begun = true;
        if line.is_empty() {
            return self.data.take();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of the text, which arrives in pieces of so many bytes, and what is left at its end.
    fn read(text: &str, piece: usize) -> (Vec<String>, Option<String>) {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        for bytes in text.as_bytes().chunks(piece) {
            let taken: Result<(), ()> = events.push(bytes, |data| {
                seen.push(data.to_owned());
                Ok(())
            });
            assert_eq!(taken, Ok(()));
        }
        let left = events.finish();
        (seen, left)
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            ("data: a\n\ndata: b\n\n", &["a", "b"], None),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"], None),
            ("data: a\r\rdata: b\r\r", &["a", "b"], None),
            ("data:a\n\ndata:  b\n\n", &["a", " b"], None),
            ("data: a\ndata: b\n\n", &["a\nb"], None),
            (": a comment\n\ndata: a\n: another\n\n", &["a"], None),
            ("event: message\nid: 7\nretry: 10\ndata: a\n\n", &["a"], None),
            ("\u{feff}data: a\n\n", &["a"], None),
            ("data: grüße 🦀 日本\n\n", &["grüße 🦀 日本"], None),
            ("data\n\ndata:\n\n", &["", ""], None),
            ("\n\n\n", &[], None),
            ("data: a\n\ndata: cut o", &["a"], Some("cut o")),
            ("data: a\n", &[], Some("a")),
            ("data: [DONE]", &[], Some("[DONE]")),
            ("date: a\n\n", &[], None),
        ];
        for (text, events, left) in cases {
            for piece in 1..=text.len() {
                let (seen, rest) = read(text, piece);
                assert_eq!(seen, *events, "{text:?} by {piece}");
                assert_eq!(rest.as_deref(), *left, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn an_error_ends_the_reading() {
        let mut events = Events::default();
        let mut seen = 0;
        let taken = events.push(b"data: a\n\ndata: b\n\n", |_| {
            seen += 1;
            Err("enough")
        });
        assert_eq!((taken, seen), (Err("enough"), 1));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut events = Events::default();
        let mut seen = String::new();
        let taken: Result<(), ()> = events.push(b"data: a\xffb\n\n", |data| {
            seen.push_str(data);
            Ok(())
        });
        assert_eq!((taken, seen.as_str()), (Ok(()), "a\u{fffd}b"));
    }
}
