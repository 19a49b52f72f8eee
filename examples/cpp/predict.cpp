// Score one image with the graph of a bundle, in C++ and without Python: predict MODEL.onnx IMAGE.ppm [CATEGORY]
//
// The tensors are those of docs/deployment.md. OpenVINO reads the ONNX file as it is; with another ONNX engine
// the names, shapes and types are the same. PPM (P6) has no compression, so that no image library is needed.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

struct Image {
    std::size_t height, width;
    float white;                // full scale: 255, or 65535 for 16 bits
    std::vector<float> levels;  // height x width x 3
};

Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    std::size_t width = 0, height = 0, white = 0;
    file >> magic >> width >> height >> white;
    file.get();
    if (!file || magic != "P6" || (white != 255 && white != 65535)) throw std::runtime_error(path + ": no P6 image");
    const std::size_t bytes = white > 255 ? 2 : 1;
    std::vector<std::uint8_t> raw(height * width * 3 * bytes);
    if (!file.read(reinterpret_cast<char*>(raw.data()), static_cast<std::streamsize>(raw.size())))
        throw std::runtime_error(path + ": is truncated");
    Image image{height, width, static_cast<float>(white), std::vector<float>(height * width * 3)};
    for (std::size_t i = 0; i < image.levels.size(); ++i)
        image.levels[i] = bytes == 1 ? raw[i] : static_cast<float>(raw[2 * i] * 256 + raw[2 * i + 1]);
    return image;
}

int main(int argc, char** argv) try {
    if (argc < 3) throw std::runtime_error("usage: predict MODEL.onnx IMAGE.ppm [CATEGORY]");
    Image image = read_ppm(argv[2]);
    float range[] = {0.0F, image.white};
    std::int64_t category[] = {argc > 3 ? std::stoll(argv[3]) : 0};

    ov::Core core;
    ov::CompiledModel model =
        core.compile_model(argv[1], "CPU", ov::hint::inference_precision(ov::element::f32));
    ov::InferRequest request = model.create_infer_request();
    request.set_tensor("image", {ov::element::f32, {1, image.height, image.width, 3}, image.levels.data()});
    request.set_tensor("range", {ov::element::f32, {2}, range});
    request.set_tensor("category", {ov::element::i64, {1}, category});
    request.infer();

    const char* names[] = {"good", "review", "bad"};
    const auto decision = request.get_tensor("decision").data<std::int64_t>()[0];
    std::cout << names[decision] << " p " << request.get_tensor("p_value").data<float>()[0] << " score "
              << request.get_tensor("score").data<float>()[0] << "\n";
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
