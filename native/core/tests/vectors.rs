//! The values of docs/protocol/test-vectors.md that depend on the protocol's version, computed from the page's own program.
//!
//! Transcript and digests are computed here as the pages describe them. A failure prints the value that the page should have.

use std::path::PathBuf;

use nexus_edge_core::channel::Transcript;
use nexus_edge_core::exec::Executor;
use nexus_edge_core::field::{F, K, P, canonical, from_i64};
use nexus_edge_core::ntt;
use nexus_edge_core::parameters::{Mode, Parameters};
use nexus_edge_core::program::{DType, Program, Tensor, Weights};
use nexus_edge_core::proof::{Compiled, Content, ProvingKey, Request, prove, tensor_commitment, verify};
use nexus_edge_core::random::Seed;
use p3_field::PrimeCharacteristicRing;

/// The page, and values that it lacks.
struct Page {
    text: String,
    missing: Vec<String>,
}

impl Page {
    fn read() -> Page {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol/test-vectors.md");
        Page { text: std::fs::read_to_string(path).expect("the page"), missing: Vec::new() }
    }

    /// The hexadecimal block after the first occurrence of `before`.
    fn block(&self, before: &str) -> Vec<u8> {
        let after = self.text.split_once(before).expect("the text before the block").1;
        let lines = after.lines().skip_while(|l| !l.starts_with("    ")).take_while(|l| l.starts_with("    "));
        let digits: Vec<u8> = lines.flat_map(|l| l.trim().bytes()).collect();
        let pairs = digits.as_chunks::<2>().0.iter();
        pairs.map(|d| u8::from_str_radix(std::str::from_utf8(d).expect("ASCII"), 16).expect("hexadecimal")).collect()
    }

    fn expect(&mut self, what: &str, value: impl ToString) {
        let value = value.to_string();
        if !self.text.contains(&value) {
            self.missing.push(format!("{what}: {value}"));
        }
    }

    fn check(self) {
        assert!(self.missing.is_empty(), "the page lacks\n{}", self.missing.join("\n"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn element(x: &[F]) -> String {
    format!("{} + {} X", canonical(x[0]), canonical(x[1]))
}

/// The transcript, as the pages describe it.
#[derive(Default)]
struct State([u8; 32]);

impl State {
    fn absorb(&mut self, label: &str, data: &[u8]) {
        let length = |n: usize| (n as u64).to_le_bytes();
        let all = [&self.0[..], &length(label.len()), label.as_bytes(), &length(data.len()), data].concat();
        self.0 = blake3::derive_key("nexus-edge v1 transcript", &all);
    }

    fn challenge(&mut self, label: &str, n: usize) {
        self.absorb("challenge", label.as_bytes());
        self.absorb("count", &(n as u64).to_le_bytes());
    }
}

#[test]
fn the_transcript() {
    let mut page = Page::read();
    let (mut state, mut transcript) = (State::default(), Transcript::new());
    state.absorb("version", b"nexus-edge proof v5");
    transcript.absorb("version", b"nexus-edge proof v5");
    page.expect("after the version", hex(&state.0));
    for x in transcript.challenge::<2>("alpha", 2) {
        page.expect("alpha", element(&x.0));
    }
    state.challenge("alpha", 2);
    page.expect("after alpha", hex(&state.0));
    let indices: Vec<String> = transcript.indices("rows", 4, 9).iter().map(usize::to_string).collect();
    page.expect("indices", indices.join(", "));
    state.challenge("rows", 4);
    page.expect("after the indices", hex(&state.0));
    page.check();
}

#[test]
fn a_small_model() {
    let mut page = Page::read();
    let program = Program::from_bytes(&page.block("Program, 314 bytes")).expect("the page's program");
    let weights = Weights::from_bytes(&page.block("biases `[10, -20]`")).expect("the page's weights");
    page.expect("program", blake3::hash(&program.to_bytes()));
    let (program_bytes, input) = (program.unnamed_bytes(), program.tensors[program.inputs[0].tensor as usize].clone());
    let key = ProvingKey::new(program, weights, false, 100, Mode::Plain).expect("a key");
    let bytes = key.verifying.to_bytes();
    let root = &bytes[8 + 4 + 1 + 1 + 8..][..32];
    page.expect("root of the model", hex(root));
    page.expect("key", format!("| key, BLAKE3 of its {} bytes | `{}` |", bytes.len(), blake3::hash(&bytes)));
    let parameters = Parameters::new(100, Mode::Plain).expect("a set");
    let set = parameters.to_bytes();
    let sized = |part: &[u8]| [&(part.len() as u64).to_le_bytes(), part].concat();
    let digest = blake3::derive_key(
        "nexus-edge v1 model",
        &[vec![1], sized(b"nexus-edge proof v5"), sized(&set), sized(root), sized(&program_bytes)].concat(),
    );
    assert_eq!(digest, key.verifying.digest());
    page.expect("digest", hex(&digest));

    let executor = Executor::new(key.verifying.program().clone(), &key.weights).expect("an executor");
    let request = Request { inputs: vec![&[1, -2, 100]], committed: vec![true, false], ..Request::default() };
    let made = prove(&key, &executor, &request, &mut |_, _| true).expect("a proof");
    verify(&key.verifying, &made.statement, &made.proof).expect("an honest proof");
    assert_eq!(made.outputs, [[44, -55]]);
    page.expect("roots", format!("`{}`, `{}`", hex(&made.proof[..32]), hex(&made.proof[32..64])));
    let Content::Committed(commitment) = made.statement.tensors[0].content else { panic!("the input is committed") };
    page.expect("input commitment", hex(&commitment));
    let word = |i: usize| u64::from_le_bytes(made.proof[64 + 8 * i..][..8].try_into().expect("8 bytes"));
    page.expect("denominator", format!("{} + {} X", word(0), word(1)));
    page.expect("proof", format!("{} bytes, BLAKE3 `{}`", made.proof.len(), blake3::hash(&made.proof)));

    let description = |t: &Tensor| {
        let mut out = vec![t.dtype as u8, t.dims.len() as u8];
        t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.push(u8::from(t.scale.is_some()));
        out.extend(t.scale.unwrap_or(0).to_le_bytes());
        out.extend(t.zero_point.to_le_bytes());
        out
    };
    let compiled = key.verifying.compiled(&request.committed).expect("compiled");
    let program = key.verifying.program();
    let (mut state, mut transcript) = (State::default(), Transcript::new());
    let mut absorb = |label: &str, data: &[u8]| {
        state.absorb(label, data);
        transcript.absorb(label, data);
    };
    absorb("version", b"nexus-edge proof v5");
    absorb("parameter set", &set);
    absorb("mode", &[0]);
    absorb("semantics", &[program.semantics as u8]);
    absorb("model", &digest);
    absorb("context", &[0; 32]);
    absorb("tensor", &description(&input));
    absorb("committed", &commitment);
    absorb("tensor", &description(&program.tensors[program.outputs[0].tensor as usize]));
    absorb("clear", &[44, -55i8 as u8]);
    absorb("oracles", &3u64.to_le_bytes());
    for (layout, root) in compiled.oracles.iter().zip([&made.proof[..32], &made.proof[32..64], root]) {
        absorb("oracle", &layout.to_bytes());
        absorb("root", root);
    }
    page.expect("transcript before tie", hex(&state.0));
    transcript.challenge::<2>("tie", compiled.tie_variables);
    transcript.challenge::<2>("copy", 0);
    let alpha: K<2> = transcript.challenge("alpha", 1)[0];
    page.expect("alpha", element(&alpha.0));
    page.check();
}

#[test]
fn a_hiding_commitment() {
    let mut page = Page::read();
    let parameters = Parameters::new(100, Mode::Zk).expect("a set");
    let seed = Seed::from_bytes(core::array::from_fn(|i| i as u8));
    let tensor = Tensor { name: String::new(), dtype: DType::Int8, dims: vec![1, 3], scale: None, zero_point: 0 };
    let values = [1, -2, 100].map(from_i64);
    let committed = Compiled::commit_tensor(&parameters, &tensor, &values, &seed);
    page.expect("set", hex(&parameters.to_bytes()));
    let layout = &committed.layout;
    let numbers = [1, layout.log_rows, layout.columns, 1, 3].map(|n| (n as u64).to_le_bytes());
    let description = [parameters.to_bytes(), numbers.concat()].concat();
    // dtype, rank, dimensions, no scale, zero point.
    let what = [&[0u8, 2][..], &1u32.to_le_bytes(), &3u32.to_le_bytes(), &[0; 9]].concat();
    let mut own = blake3::Hasher::new_derive_key("nexus-edge v1 bound seed");
    let own = *own.update(seed.expose()).update(&(what.len() as u64).to_le_bytes()).update(&what).finalize().as_bytes();
    page.expect("tensor's seed", hex(&own));
    let mut bound = blake3::Hasher::new_derive_key("nexus-edge v1 bound seed");
    bound.update(&own).update(&(description.len() as u64).to_le_bytes()).update(&description);
    values.iter().for_each(|&x| {
        bound.update(&canonical(x).to_le_bytes());
    });
    let bound = *bound.finalize().as_bytes();
    page.expect("bound seed", hex(&bound));
    let mut words = blake3::Hasher::new_derive_key("nexus-edge v1 random stream").update(&bound).update(&[0; 16]).finalize_xof();
    let mut word = || {
        let mut bytes = [0; 8];
        words.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    let rows = 1 << layout.log_rows;
    let cells: Vec<u64> = (0..rows / 2).map(|_| word()).collect();
    assert!(cells.iter().all(|&c| c < P), "another seed if not: one in two million has a word to replace");
    page.expect("random cells", cells[..3].iter().map(u64::to_string).collect::<Vec<_>>().join(", "));
    let mut salts = vec![0; 16 << layout.log_domain()];
    blake3::Hasher::new_derive_key("nexus-edge v1 salts").update(&bound).finalize_xof().fill(&mut salts);
    page.expect("salts", format!("`{}`, `{}`", hex(&salts[..16]), hex(&salts[16..32])));

    // One column: the data, zeros, random cells.
    let mut column = vec![from_i64(0); rows];
    column[..3].copy_from_slice(&values);
    column.iter_mut().skip(rows / 2).zip(&cells).for_each(|(to, &c)| *to = F::from_u64(c));
    let leaf = |i: usize| {
        let x = ntt::point(layout.log_domain(), i);
        let value = column.iter().rev().fold(from_i64(0), |y, &c| y * x + c);
        let input = [&canonical(value).to_le_bytes()[..], &salts[16 * ntt::reverse(i, layout.log_domain())..][..16], &[0; 40]].concat();
        *blake3::keyed_hash(&blake3::derive_key("nexus-edge v1 leaf-salted tensor", &1u64.to_le_bytes()), &input).as_bytes()
    };
    let mut level: Vec<[u8; 32]> = (0..1 << layout.log_domain()).map(leaf).collect();
    for height in 1..=layout.log_domain() {
        let key = blake3::derive_key("nexus-edge v1 node", &(height as u64).to_le_bytes());
        level = level.as_chunks::<2>().0.iter().map(|pair| *blake3::keyed_hash(&key, pair.as_flattened()).as_bytes()).collect();
    }
    assert_eq!(level, [committed.root]);
    page.expect("root", hex(&committed.root));
    page.expect("commitment", hex(&tensor_commitment(&committed.root, &tensor, &parameters)));
    page.check();
}
