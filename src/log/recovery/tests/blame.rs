//! Tests of the first index that damage is said to concern.

use super::*;

#[test]
fn damage_to_a_frame_names_the_first_index_it_loses() {
    for number in 0..5_usize {
        let log = five_frames();
        let disk = log.disk(64);
        let (segment, _, end) = log.frames[number];
        let name = segment_name(segment);
        let mut bytes = disk.bytes(&name);
        bytes[end - 1] ^= 1;
        disk.set(&name, bytes);
        let place = corrupt(read(&disk, &meta(5)).1);
        // Nothing before the first frame names its index; its own header does.
        assert_eq!((place.file, place.index), (name, Some([0, 2, 3, 6, 7][number])));
        assert_eq!(place.what, "a frame body does not read back");
    }
}

#[test]
fn a_first_header_that_does_not_read_back_says_nothing_about_the_index() {
    let mut log = five_frames();
    log.segments[0][8] ^= 1;
    assert_eq!(corrupt(read(&log.disk(64), &meta(5)).1).index, None);
}
