//! Where the entries of a frame are that was read from disk.

#![allow(unsafe_code, reason = "a proof begins here; see docs/unsafe.md")]

use super::scan::GoodFrame;
use crate::codec::Extent;
use crate::numbers::SegmentNumber;

impl GoodFrame<'_> {
    /// Extent of the frame's entries; `None` if the segment's number or an offset does not fit 32
    /// bits.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let at = |offset: u64| u32::try_from(offset).ok();
        let segment = Some(self.segment).filter(|segment| *segment < SegmentNumber::NOWHERE)?;
        let frame = at(self.offset)?;
        let end = at(self.offset.checked_add(self.header.frame_bytes())?)?;
        let start = end.checked_sub(self.header.body_bytes)?;
        // SAFETY: the frame was read whole from the segment's file. If the segment gets an image,
        // the image begins with the bytes of the file up to the log's end. Frames that are applied
        // or fed end there at the latest.
        Some(unsafe { Extent::new(segment, frame, start, end) })
    }
}
