//! The number of masked messages is a formula of the program: it must be what reading consumes. The equations are at most as many as the
//! soundness calculator counts.

use super::support::random_net::random_net;
use super::support::{dense, dense_with, everything, nets, uint8_head};
use crate::field::K;
use crate::layout::Layout;
use crate::masking::{MaskedReader, Nothing};
use crate::parameters::{Mode, Parameters};
use crate::program::check::CheckedProgram;
use crate::program::{Program, Weights};
use crate::proof::{Compiled, Content, ProvingKey, Statement, StatementTensor, VerifyingKey};
use crate::proof::{conversation, masked_messages, soundness, weight_conversation};
use crate::soundness::Term;

/// Messages and equations of a form of statement, by reading a proof of zeros.
fn counts<const D: usize>(key: &VerifyingKey, committed: &[bool]) -> (usize, usize) {
    let compiled = key.compiled(committed).expect("a layout");
    let program = key.program();
    let tensors = compiled.layout.ports.iter().zip(committed).map(|(&id, &committed)| {
        let tensor = &program.tensors[id as usize];
        StatementTensor::new(tensor, if committed { Content::Committed([0; 32]) } else { Content::Clear(vec![0; tensor.size()]) })
    });
    let statement = Statement { digest: key.digest(), context: [0; 32], inputs: program.inputs.len(), tensors: tensors.collect() };
    let mut reader = MaskedReader::<Nothing, D>::new(Nothing::default());
    conversation(&mut reader, key, &compiled, &statement, &vec![[0; 32]; compiled.oracles.len()]).expect("zeros are a conversation");
    reader.counts()
}

/// The soundness calculator's term for the batch is of at least so many equations.
fn assert_counted(parameters: &Parameters, compiled: &Compiled, equations: usize) {
    let terms = soundness(parameters, compiled).terms;
    let counted = terms.iter().find(|t: &&Term| t.name == "line: equations").expect("a zero-knowledge proof").bits;
    let field = 63.999 * parameters.degree() as f64;
    assert!(equations > 0 && counted <= field - (equations as f64).log2(), "{equations} equations, {counted} bits");
}

/// The words of `r` and `b` are close to the code for all but as many `e` as the domain has points.
#[test]
fn the_line_counts_every_point_of_its_domain() {
    for security in [100, 128] {
        let (program, weights) = dense(1, 20, 7);
        let key = ProvingKey::new(Program::clone(&program), weights, false, security, Mode::Zk).expect("a key").verifying;
        let compiled = key.compiled(&key.usual_form()).expect("a layout");
        let witness = compiled.oracles.iter().find(|o| o.has_mask()).expect("a witness");
        let terms = soundness(key.parameters(), &compiled).terms;
        let closeness = terms.iter().find(|t| t.name == "line: closeness").expect("a zero-knowledge proof").bits;
        assert_eq!(closeness, 63.999 * key.parameters().degree() as f64 - witness.log_domain() as f64);
    }
}

/// Checks all forms of a network; `false` if it has no proof.
fn check((program, weights): (CheckedProgram, Weights), inside: bool, security: u32) -> bool {
    let Ok(key) = ProvingKey::new(Program::clone(&program), weights, inside, security, Mode::Zk) else { return false };
    let key = &key.verifying;
    let ports = program.inputs.len() + program.outputs.len();
    for form in 0..1 << ports {
        let committed: Vec<bool> = (0..ports).map(|i| form >> i & 1 == 1).collect();
        let compiled = key.compiled(&committed).expect("a layout");
        let (messages, equations) = if security == 100 { counts::<2>(key, &committed) } else { counts::<3>(key, &committed) };
        assert_eq!(messages, masked_messages(&compiled), "{:?} {committed:?}", program.ops);
        assert_counted(key.parameters(), &compiled, equations);
    }
    true
}

#[test]
fn messages_and_equations_of_the_tests_networks() {
    for security in [100, 128] {
        for inside in [true, false] {
            let networks = [
                dense(1, 20, 7),
                dense_with(5, 700, 400, 11),
                everything(3, 10),
                uint8_head(),
                nets::convolution(),
                nets::chain(),
                nets::quarter(),
                nets::two_offsets(),
                nets::max_pool(),
                nets::average_pool(),
                nets::softmax(3, 8),
                nets::tables(),
                nets::views(),
            ];
            for net in networks {
                assert!(check(net, inside, security));
            }
        }
    }
}

/// The line needs a row for each message: a deep network's witness has as many as it takes, and no more.
#[test]
fn deep_networks_have_more_rows_for_their_messages() {
    let (program, weights) = nets::deep();
    let key = ProvingKey::new(Program::clone(&program), weights, false, 100, Mode::Zk).expect("a key").verifying;
    let compiled = key.compiled(&key.usual_form()).expect("a layout");
    let (messages, _) = counts::<2>(&key, &key.usual_form());
    assert_eq!(messages, masked_messages(&compiled));
    let rows = 1 << compiled.stack.log_rows;
    assert!((rows / 2..rows).contains(&messages), "{messages} messages, {rows} rows");
    assert!(rows > 1 << key.parameters().min_log_rows(0, true));
}

/// Proofs of inference under hidden weights, registrations and links.
#[test]
fn messages_and_equations_of_private_models() {
    for (depthwise, security) in [(false, 100), (true, 128)] {
        let net = nets::private_layer(depthwise, 1);
        assert!(check(net.clone(), false, security));
        let parameters = Parameters::new(security, Mode::Zk).expect("a set");
        let layouts = [Layout::registration(&net.0).expect("a layout"), Layout::link(&net.0, 1), Layout::link(&net.0, 3)];
        for layout in layouts {
            let compiled = Compiled::from_layout(&parameters, layout).expect("a structure");
            let (messages, equations) =
                if security == 100 { weight_counts::<2>(&parameters, &compiled) } else { weight_counts::<3>(&parameters, &compiled) };
            assert_eq!(messages, masked_messages(&compiled));
            assert_counted(&parameters, &compiled, equations);
        }
    }
}

fn weight_counts<const D: usize>(parameters: &Parameters, compiled: &Compiled) -> (usize, usize) {
    let mut reader = MaskedReader::<Nothing, D>::new(Nothing::default());
    weight_conversation(&mut reader, parameters, compiled, &vec![[0; 32]; compiled.oracles.len()]).expect("zeros are a conversation");
    reader.counts()
}

#[test]
fn messages_and_equations_of_random_networks() {
    let alive = (0..120).filter(|&seed| random_net(seed).is_ok_and(|net| check(net, seed % 2 == 0, 100))).count();
    assert!(alive > 40, "{alive} networks");
}

/// A count is one of what is received, not of what is sent in the clear.
#[test]
fn clear_elements_are_not_counted() {
    use crate::channel::Reader;
    let mut reader = MaskedReader::<Nothing, 2>::new(Nothing::default());
    let x = reader.receive("x", 3).expect("zeros");
    reader.receive_clear("y", 5).expect("zeros");
    let square = reader.product(&x[0], &x[1]);
    let form = reader.add(&square, &reader.constant(K::ONE));
    reader.assert_zero(&form, "form").expect("recorded");
    assert_eq!(reader.counts(), (3, 1));
}
