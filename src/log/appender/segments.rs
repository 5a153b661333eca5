//! Moving from one segment to the next: a full one, one ended early, and a log that starts over.

use std::io;

use super::{Appender, SEGMENT_SLACK_BYTES};
use crate::entry::LogId;
use crate::error::Poison;
use crate::image::ImageWriter;
use crate::log::meta::LogBase;
use crate::log::terms::TermRuns;
use crate::numbers::{Mark, SegmentNumber};
use crate::poison::{CallerPoisons, invariant};

impl Appender {
    /// Continues in the image that was taken for the next segment.
    pub(super) fn roll(&mut self) -> Option<()> {
        let next = self.next.take()?;
        let full = std::mem::replace(&mut self.active, next);
        if self.to_writer.is_none() {
            let mark = Mark::of(self.position.last.map(|last| last.index));
            self.retired.push_back((mark, full.image().segment()));
        }
        self.show_active();
        Some(())
    }

    /// Ends a segment early, if `used_min` bytes of it are used and there is an image. Returns the
    /// number of the next.
    pub(crate) fn end_segment(&mut self, used_min: usize) -> Option<SegmentNumber> {
        let number = self.segment_after(used_min).filter(|_| self.to_writer.is_some())?;
        if self.next.is_none() && number.is_possible() {
            // Without memory for an image now, a later call ends the segment.
            self.next = self.pool.begin(number, SEGMENT_SLACK_BYTES, &[]).ok().flatten();
        }
        self.next.as_ref()?;
        self.close_frame();
        self.roll()?;
        Some(number)
    }

    /// The number of the next segment, if `used_min` bytes of this one are used.
    pub(crate) fn segment_after(&self, used_min: usize) -> Option<SegmentNumber> {
        (self.active.end() >= used_min).then(|| self.active.image().segment().next())
    }

    pub(super) fn show_active(&mut self) {
        let image = self.active.image();
        self.table.set_held(image.segment(), self.spares.hold(image, self.table.pin_count()));
    }

    /// An image for the next segment, for [`Appender::start_over`]; `None` if all are in use.
    pub(crate) fn next_image(&mut self) -> io::Result<Option<ImageWriter>> {
        if self.to_writer.is_none() {
            return Ok(None);
        }
        self.next = None;
        self.pool.begin(self.active.image().segment().next(), 0, &[])
    }

    /// Makes the log continue after `last`, and drops everything before. A log on disk continues in
    /// the segment of `base`, and in the given image. No frame is open, and all are written.
    pub(crate) fn start_over(
        &mut self,
        last: LogId,
        on_disk: Option<(LogBase, ImageWriter)>,
    ) -> Result<(), Poison> {
        let begins = on_disk.as_ref().map(|(base, image)| (base.segment, image.image().segment()));
        let fits = begins.is_none_or(|(base, image)| base == image);
        invariant!(
            CallerPoisons,
            self.open.is_none() && fits,
            "a log starts over where its base is, and no frame is open",
            "base and image {begins:?}"
        );
        if let Some((base, image)) = on_disk {
            self.position.next_sequence = base.sequence.next();
            self.active = image;
            self.next = None;
            self.show_active();
        }
        self.position.index.start_over();
        self.position.unfed.clear();
        self.spans.clear();
        self.position.terms = TermRuns::default();
        self.position.skipped = None;
        self.position.terms.push(last);
        self.position.last = Some(last);
        self.position.committed_mark = Mark::through(last.index);
        Ok(())
    }

    pub(super) fn next_fits(&self, needed: usize) -> bool {
        self.next.as_ref().is_some_and(|next| needed <= next.room())
    }

    /// Releases images whose entries are all applied, of a log in memory only.
    pub(super) fn free_retired(&mut self, applied_mark: Mark) {
        while let Some((mark, segment)) = self.retired.front().copied()
            && mark <= applied_mark
        {
            if let Some(holder) = self.table.take(segment) {
                self.spares.keep(holder);
            }
            self.retired.pop_front();
        }
    }
}
