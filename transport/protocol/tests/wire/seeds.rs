//! Writes the vectors as a starting corpus for the fuzz targets (see `fuzz/README.md`).

use std::fs;
use std::path::PathBuf;

use penstock_protocol::ApiKey;

use crate::codec::CODECS;
use crate::corpus::vectors;

#[test]
#[ignore = "writes fuzz/corpus; run by hand before fuzzing"]
fn write_fuzz_corpus() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in ["requests", "responses"] {
        fs::create_dir_all(corpus.join(target)).unwrap();
    }
    for (at, vector) in vectors().iter().enumerate() {
        let index = CODECS.iter().position(|codec| codec.name == vector.message).unwrap();
        let api = ApiKey::all().iter().find(|api| vector.message.strip_suffix("Request") == Some(api.name));
        let (target, start) = match api {
            Some(api) => {
                // Key, version, correlation id, no client id, and in flexible versions no tags.
                let [key, version] = [api.key.code(), vector.version].map(i16::to_be_bytes);
                let mut start = [&key[..], &version, &[0, 0, 0, 1, 0xff, 0xff]].concat();
                start.extend((api.key.request_header_version(vector.version) == 2).then_some(0));
                ("requests", start)
            }
            None => ("responses", vec![index as u8, (vector.version - CODECS[index].versions.min) as u8]),
        };
        let name = format!("{}-{}-{at}", vector.message, vector.version);
        fs::write(corpus.join(target).join(name), [start, vector.body.to_vec()].concat()).unwrap();
    }
}
