// Runs the original networks in TensorFlow.js on given inputs, as the independent reference of tests/detect/graph_runner_test.py.
//
//   npm install @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-converter@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0
//   node tools/eyes/reference.js MODEL.json INPUT.bin "1,256,256,3" int32|float32 OUTPUT.json
//
// INPUT.bin holds the raw values, little endian. OUTPUT.json maps each output's name to its values.
const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const { loadGraphModel } = require('@tensorflow/tfjs-converter');

async function main([modelFile, inputFile, shapeText, dtype, outputFile]) {
  const description = JSON.parse(fs.readFileSync(modelFile));
  const weights = description.weightsManifest.flatMap((group) => group.paths)
    .map((file) => fs.readFileSync(path.join(path.dirname(modelFile), file)));
  const model = await loadGraphModel({
    load: async () => ({
      ...description,
      weightSpecs: description.weightsManifest.flatMap((group) => group.weights),
      weightData: new Uint8Array(Buffer.concat(weights)).buffer,
    }),
  });
  await tf.setBackend('cpu');
  const bytes = new Uint8Array(fs.readFileSync(inputFile)).buffer;
  const values = dtype === 'int32' ? new Int32Array(bytes) : new Float32Array(bytes);
  const input = tf.tensor(values, shapeText.split(',').map(Number), dtype);
  const names = Object.keys(description.signature.outputs);
  const outputs = model.execute(input, names.map((name) => description.signature.outputs[name].name));
  const result = {};
  [].concat(outputs).forEach((tensor, i) => { result[names[i]] = Array.from(tensor.dataSync()); });
  fs.writeFileSync(outputFile, JSON.stringify(result));
}

main(process.argv.slice(2));
