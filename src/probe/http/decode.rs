//! A body as it is meant: gzip, br and zstd undone while it comes in, never past its bound.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::DParameter;
use zstd::stream::write::Decoder as Zstd;
use zstd::stream::zio;

use super::compression::Coding;
use crate::failure::{ErrorType, Failure};

/// The largest window that a decoder may keep: RFC 9659's bound, and what is left of a run's memory.
const WINDOW_LOG: u32 = 23;

/// Gathers a body, decoded, and at most `room` bytes of it.
pub(super) struct Gathering {
    coding: Option<Coding>,
    way: Way,
    room: usize,
}

enum Way {
    /// Nothing yet.
    Empty,
    /// A body of one piece, which most are, is not copied.
    Whole(Bytes),
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
    Brotli(Box<DecompressorWriter<Bounded>>),
    Zstd(Box<Zstd<'static, Bounded>>),
}

impl Gathering {
    /// Gathers at most `room` bytes of a body in this coding.
    pub(super) fn new(coding: Option<Coding>, room: usize) -> Self {
        Self { coding, way: Way::Empty, room }
    }

    /// Takes the next piece as it came.
    pub(super) fn take(&mut self, piece: Bytes) -> Result<(), Failure> {
        if piece.is_empty() {
            return Ok(());
        }
        self.way = match (std::mem::replace(&mut self.way, Way::Empty), self.coding) {
            (Way::Empty, None) if piece.len() <= self.room => {
                self.way = Way::Whole(piece);
                return Ok(());
            }
            (Way::Empty, None) => Way::Plain(Bounded::new(self.room)),
            (Way::Empty, Some(coding)) => self.decoder(coding, &piece)?,
            (Way::Whole(first), _) => {
                let mut bounded = Bounded::new(self.room);
                bounded.bytes.reserve(first.len() + piece.len());
                bounded.bytes.extend_from_slice(&first);
                Way::Plain(bounded)
            }
            (way, _) => way,
        };
        let written = match &mut self.way {
            Way::Empty | Way::Whole(_) => Ok(()),
            Way::Plain(bounded) => bounded.write_all(&piece),
            Way::Gzip(decoder) => decoder.write_all(&piece),
            Way::Brotli(decoder) => decoder.write_all(&piece),
            Way::Zstd(decoder) => decoder.write_all(&piece),
        };
        written.map_err(|error| self.broken(&error))
    }

    /// The body has ended: what is still inside a decoder comes out.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let finished = match &mut self.way {
            Way::Empty | Way::Whole(_) | Way::Plain(_) => Ok(()),
            Way::Gzip(decoder) => decoder.try_finish(),
            Way::Brotli(decoder) => decoder.close(),
            Way::Zstd(decoder) => decoder.do_finish(),
        };
        finished.map_err(|error| self.broken(&error))
    }

    /// What was gathered so far.
    pub(super) fn into_bytes(mut self) -> Bytes {
        if let Way::Whole(bytes) = &mut self.way {
            return std::mem::take(bytes);
        }
        self.bounded().map_or_else(Bytes::new, |bounded| std::mem::take(&mut bounded.bytes).into())
    }

    fn decoder(&self, coding: Coding, first: &[u8]) -> Result<Way, Failure> {
        let bounded = Bounded::new(self.room);
        Ok(match coding {
            Coding::Gzip => Way::Gzip(Box::new(MultiGzDecoder::new(bounded))),
            Coding::Br if wide(first) => return Err(too_wide(coding)),
            Coding::Br => Way::Brotli(Box::new(DecompressorWriter::new(bounded, 4096))),
            Coding::Zstd => {
                let mut raw =
                    zstd::stream::raw::Decoder::new().map_err(|error| no_decoder(&error))?;
                raw.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                    .map_err(|error| no_decoder(&error))?;
                Way::Zstd(Box::new(Zstd::with_writer(zio::Writer::new(bounded, raw))))
            }
        })
    }

    fn bounded(&mut self) -> Option<&mut Bounded> {
        match &mut self.way {
            Way::Empty | Way::Whole(_) => None,
            Way::Plain(bounded) => Some(bounded),
            Way::Gzip(decoder) => Some(decoder.get_mut()),
            Way::Brotli(decoder) => Some(decoder.get_mut()),
            Way::Zstd(decoder) => Some(decoder.get_mut()),
        }
    }

    fn broken(&mut self, error: &io::Error) -> Failure {
        let room = self.room;
        if self.bounded().is_some_and(|bounded| bounded.full) {
            let decoded = if self.coding.is_some() { " when decoded" } else { "" };
            let message = format!("the body is larger than max_body, {room} bytes{decoded}");
            return Failure::new(ErrorType::ResponseTooLarge, message);
        }
        match self.coding {
            Some(coding) if error.to_string().contains("too much memory") => too_wide(coding),
            coding => {
                let name = coding.map_or("plain", Coding::as_str);
                let message = format!("the body is no {name} data: {error}");
                Failure::new(ErrorType::ResponseMalformed, message)
            }
        }
    }
}

/// Whether a brotli stream asks for the one window above 8 MiB that the format has.
fn wide(first: &[u8]) -> bool {
    first.first().is_some_and(|byte| byte & 0x0f == 0x0f)
}

fn too_wide(coding: Coding) -> Failure {
    let message = format!("the body's {} window is larger than 8 MiB", coding.as_str());
    Failure::new(ErrorType::ResponseTooLarge, message)
}

fn no_decoder(error: &io::Error) -> Failure {
    Failure::new(ErrorType::AgentOverloaded, format!("cannot make a decoder: {error}"))
}

/// A buffer that refuses what is too much.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
    full: bool,
}

impl Bounded {
    fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room, full: false }
    }
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let left = self.room - self.bytes.len().min(self.room);
        self.bytes.extend(piece.iter().take(left));
        if piece.len() > left {
            self.full = true;
            return Err(io::Error::other("full"));
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// `hello` as the `brotli` program writes it.
    const BROTLI_HELLO: &[u8] = &[0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(plain, flate2::Compression::fast())
            .read_to_end(&mut packed)
            .unwrap();
        packed
    }

    fn decoded(coding: Option<Coding>, room: usize, packed: &[u8]) -> (Result<(), Failure>, Bytes) {
        let mut gathering = Gathering::new(coding, room);
        let mut result = Ok(());
        // In crumbs, so that no decoder depends on where pieces end.
        for crumb in packed.chunks(3) {
            result = result.and_then(|()| gathering.take(Bytes::copy_from_slice(crumb)));
        }
        result = result.and_then(|()| gathering.finish());
        (result, gathering.into_bytes())
    }

    #[test]
    fn each_coding_is_undone() {
        let members = [gzip(b"hel"), gzip(b"lo")].concat();
        let zstd = zstd::encode_all(&b"hello"[..], 3).unwrap();
        for (coding, packed) in [
            (None, b"hello".to_vec()),
            (Some(Coding::Gzip), members),
            (Some(Coding::Br), BROTLI_HELLO.to_vec()),
            (Some(Coding::Zstd), zstd),
        ] {
            let (result, bytes) = decoded(coding, 5, &packed);
            assert_eq!((result, bytes.as_ref()), (Ok(()), &b"hello"[..]), "{coding:?}");
        }
    }

    #[test]
    fn a_body_of_no_bytes_is_an_empty_body_in_any_coding() {
        for coding in Coding::ALL {
            assert_eq!(decoded(Some(*coding), 9, b""), (Ok(()), Bytes::new()));
        }
    }

    #[test]
    fn a_bomb_is_cut_at_the_bound() {
        let zeros = vec![0; 3 << 20];
        let bombs = [
            (None, zeros.clone()),
            (Some(Coding::Gzip), gzip(&zeros)),
            (Some(Coding::Zstd), zstd::encode_all(zeros.as_slice(), 3).unwrap()),
        ];
        for (coding, bomb) in bombs {
            let (result, bytes) = decoded(coding, 1000, &bomb);
            assert_eq!(result.unwrap_err().error_type, ErrorType::ResponseTooLarge, "{coding:?}");
            assert_eq!(bytes.len(), 1000, "{coding:?}");
        }
    }

    #[test]
    fn damaged_and_cut_data_is_malformed() {
        let noise = b"this is not what it says it is, and long enough to be sure of that";
        let whole = gzip(b"hello, hello, hello");
        let zstd = zstd::encode_all(&b"hello, hello, hello"[..], 3).unwrap();
        for (coding, packed) in [
            (Coding::Gzip, &noise[..]),
            (Coding::Br, &[0x0b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..]),
            (Coding::Zstd, &noise[..]),
            (Coding::Gzip, &whole[..whole.len() - 9]),
            (Coding::Br, &BROTLI_HELLO[..6]),
            (Coding::Zstd, &zstd[..zstd.len() - 3]),
        ] {
            let (result, _) = decoded(Some(coding), 1000, packed);
            let failure = result.expect_err(coding.as_str());
            assert_eq!(failure.error_type, ErrorType::ResponseMalformed, "{coding:?}");
        }
    }

    #[test]
    fn a_window_that_wants_too_much_memory_is_refused() {
        let (result, _) = decoded(Some(Coding::Br), 1000, &[0x0f, 0x02, 0x80]);
        assert_eq!(result.unwrap_err().error_type, ErrorType::ResponseTooLarge);
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.long_distance_matching(true).unwrap();
        wide.write_all(b"hello").unwrap();
        wide.flush().unwrap();
        wide.write_all(b"hello").unwrap();
        let (result, _) = decoded(Some(Coding::Zstd), 1000, &wide.finish().unwrap());
        assert_eq!(result.unwrap_err().error_type, ErrorType::ResponseTooLarge);
    }
}
